// JSON Schemas (2020-12) of the documents that commands print, from their TypeScript types (documents.ts) and comments.
import path from 'node:path';
import { isCount } from '../../src/common/json.js';
import { type Member, type Type, Types } from './types.js';

type Json = Record<string, unknown>;

const hex = { type: 'string', pattern: '^0x[0-9a-f]+$' };
const bytes = { type: 'string', pattern: '^([0-9a-f]{2})*$' };
const count = { type: 'integer', minimum: 0 };

/** One key of a document, for the manual page. */
export interface Key {
  name: string;
  text: string;
}

/** A comment without its tags, and what they say: `@minimum 1 @pattern ^[0-9]$`. */
export function tagged(comment: string | undefined): { text: string | undefined; limits: Json } {
  if (comment === undefined) return { text: undefined, limits: {} };
  const limits: Json = {};
  const text = comment.replace(/\.?\s+@(minimum|maximum|minItems|maxLength|pattern) (\S+)/g, (_all, tag: string, value: string) => {
    limits[tag] = tag === 'pattern' ? value : Number(value);
    return '';
  });
  return { text: text.trim(), limits };
}

/** A schema within limits. A number between whole ones is whole. */
function limited(schema: Json, limits: Json): Json {
  if (Object.keys(limits).length === 0) return schema;
  const narrow = (one: Json): Json => (one.type === 'number' ? { ...one, type: 'integer', ...limits } : one);
  if (schema.anyOf) return { ...schema, anyOf: (schema.anyOf as Json[]).map(narrow) };
  return schema.type === 'number' ? narrow(schema) : { ...schema, ...limits };
}

/** Turns types into schemas; declared types become $defs. */
class Writer {
  readonly #types: Types;
  readonly defs: Record<string, Json> = {};
  readonly #names = new Map<object, string>();
  readonly #strict: boolean;

  /** @param strict whether other keys than the known ones are wrong: in files that are read, not in documents that are printed */
  constructor(types: Types, strict = false) {
    this.#types = types;
    this.#strict = strict;
  }

  /** @param key of the value: decides whether a bigint is a count */
  schema(type: Type, key: string): Json {
    switch (type.kind) {
      case 'literal':
        return { const: type.value };
      case 'array':
        return { type: 'array', items: this.schema(type.item, key) };
      case 'tuple':
        return { type: 'array', prefixItems: type.items.map((item) => this.schema(item, key)), items: false };
      case 'union':
        return this.#union(type.of, key);
      case 'both':
        return this.#object(type.of.flatMap((part) => this.members(part)));
      case 'object':
        return type.index
          ? { type: 'object', additionalProperties: this.schema(type.index, key) }
          : this.#object([...type.extends.flatMap((base) => this.members(base)), ...type.members]);
      case 'index':
        return this.schema(this.#member(type), key);
      default:
        return this.#named(type, key);
    }
  }

  /** `A['b']` */
  #member({ of, key }: Type & { kind: 'index' }): Type {
    if (key.kind !== 'literal') {
      // T[number]
      if (of.kind === 'array') return of.item;
      return { kind: 'name', name: 'unknown', args: [], file: '' };
    }
    const found = this.members(of).find((member) => member.name === key.value);
    return found?.type ?? { kind: 'name', name: 'unknown', args: [], file: '' };
  }

  #union(of: Type[], key: string): Json {
    const kinds = of.filter((type) => !isUndefined(type));
    const literals = kinds.filter((type) => type.kind === 'literal');
    if (literals.length === kinds.length && kinds.length > 1) return { enum: literals.map(({ value }) => value) };
    // a union in a union is part of it
    const schemas = kinds
      .map((type) => this.schema(type, key))
      .flatMap((schema) => (Array.isArray(schema.anyOf) && Object.keys(schema).length === 1 ? (schema.anyOf as Json[]) : [schema]));
    const distinct = schemas.filter((one, i) => schemas.findIndex((other) => JSON.stringify(one) === JSON.stringify(other)) === i);
    return distinct.length === 1 ? distinct[0]! : { anyOf: distinct };
  }

  #object(members: Member[]): Json {
    const last = new Map(members.map((member) => [member.name, member]));
    const properties: Record<string, Json> = {};
    const required: string[] = [];
    for (const { name, optional, type, comment } of last.values()) {
      const { text, limits } = tagged(comment);
      const schema = limited(this.schema(type, name), limits);
      properties[name] = text === undefined ? schema : { description: text, ...schema };
      if (!optional && !mayBeUndefined(type)) required.push(name);
    }
    return {
      type: 'object',
      properties,
      ...(required.length > 0 && { required }),
      ...(this.#strict && { additionalProperties: false }),
    };
  }

  /** The types of a union, through its name and those of unions in it. */
  parts(type: Type): Type[] {
    if (type.kind === 'union') return type.of.flatMap((part) => this.parts(part));
    const declared = type.kind === 'name' ? this.#types.find(type.name, type.file) : undefined;
    return declared?.type.kind === 'union' ? this.parts(declared.type) : [type];
  }

  /** The members of an object type, through its name, Omit and Pick. */
  members(type: Type): Member[] {
    if (type.kind === 'object') return [...type.extends.flatMap((base) => this.members(base)), ...type.members];
    if (type.kind === 'both') return type.of.flatMap((part) => this.members(part));
    if (type.kind === 'index') return this.members(this.#member(type));
    if (type.kind !== 'name') return [];
    const { name, args, file } = type;
    if (name === 'Omit' || name === 'Pick') {
      const keys = args[1]!.kind === 'union' ? args[1]!.of : [args[1]!];
      const names = new Set(keys.map((key) => key.kind === 'literal' && key.value));
      return this.members(args[0]!).filter((member) => names.has(member.name) === (name === 'Pick'));
    }
    if (name === 'Partial') return this.members(args[0]!).map((member) => ({ ...member, optional: true }));
    const declared = this.#types.find(name, file);
    return declared ? this.members(declared.type) : [];
  }

  #named(type: Type & { kind: 'name' }, key: string): Json {
    const { name, args, file } = type;
    switch (name) {
      case 'string':
        return { type: 'string' };
      case 'number':
        return { type: 'number' };
      case 'boolean':
        return { type: 'boolean' };
      case 'bigint':
        return isCount(key) ? count : hex;
      case 'Buffer':
      case 'Uint8Array':
        return bytes;
      case 'unknown':
      case 'Value':
        return {};
      case 'Record':
        return { type: 'object', additionalProperties: this.schema(args[1]!, key) };
      case 'Awaited':
      case 'Readonly':
        return this.schema(args[0]!, key);
      case 'Array':
      case 'ReadonlyArray':
        return { type: 'array', items: this.schema(args[0]!, key) };
      case 'Omit':
      case 'Pick':
      case 'Partial':
        return this.#object(this.members(type));
      default:
    }
    const declared = this.#types.find(name, file);
    if (!declared) return {};
    if (declared.type.kind !== 'object' || (args.length > 0 && declared.type.members.length === 0)) return this.schema(declared.type, key);
    let known = this.#names.get(declared.type);
    if (known === undefined) {
      known = name in this.defs ? `${name}${Object.keys(this.defs).length}` : name;
      this.#names.set(declared.type, known);
      this.defs[known] = {}; // a type may name itself
      const schema = this.schema(declared.type, key);
      this.defs[known] = declared.comment === undefined ? schema : { description: declared.comment, ...schema };
    }
    return { $ref: `#/$defs/${known}` };
  }
}

/** What a value is, for keys that explain themselves. */
function kindOf(schema: Json): string {
  if (schema.type === 'array') {
    const items = schema.items as Json;
    return items.enum ? `list of ${kindOf(items)}` : `list of ${kindOf(items)}s`.replace(/ss$/, 's');
  }
  if (schema.enum) return (schema.enum as unknown[]).join(', ');
  if ('const' in schema) return String(schema.const);
  if (schema.pattern === hex.pattern) return 'hexadecimal string';
  if (schema.$ref || schema.type === 'object') return 'object';
  if (Array.isArray(schema.anyOf)) return (schema.anyOf as Json[]).map(kindOf).join(' or ');
  return schema.type === undefined ? 'value' : String(schema.type);
}

/** A comment of one sentence as a phrase: other keys beside it have none. */
function phrase(text: string): string {
  const one = text.replace(/(?<!\be\.g|\betc)\.$/, '');
  return /[.!?] /.test(one) ? text : one.replace(/^[A-Z](?=[a-z]*[ :,])/, (letter) => letter.toLowerCase());
}

/** The values of a key that needs no comment, as they say what it is. @throws if it needs one */
function values(id: string, key: string, schemas: readonly Json[]): string {
  const all = schemas.flatMap((schema) => (schema.enum as unknown[] | undefined) ?? ('const' in schema ? [schema.const] : []));
  if (all.length === 0) throw new Error(`${id}: the key ${key} of its document has no comment`);
  return [...new Set(all)].join(', ');
}

const isUndefined = (type: Type): boolean => type.kind === 'name' && type.name === 'undefined';
const mayBeUndefined = (type: Type): boolean => type.kind === 'union' && type.of.some(isUndefined);

/** `vhost-user shmem list` to `VhostUserShmemList` */
const typeName = (id: string): string => id.replace(/(?:^|[ -])(\w)/g, (_all, letter: string) => letter.toUpperCase());

export interface Documented {
  /** Schema of `--json`, and in `$defs/record` of a line of `--ndjson`. */
  schema: Json;
  keys: Key[];
  /** Keys of one line of --ndjson. */
  record: Key[] | undefined;
}

/** The schema of each command that has a document type, by its id. */
export function documentSchemas(ids: readonly string[]): Map<string, Documented> {
  const types = new Types();
  const file = path.resolve('scripts/schemas/documents.ts');
  const names = new Set(types.names(file));
  const all = new Map<string, Documented>();
  for (const id of ids) {
    const name = typeName(id);
    const [json, record] = [name, `${name}Record`].map((one) => (names.has(one) ? types.find(one, file) : undefined));
    if (!json && !record) continue;
    const writer = new Writer(types);
    const root = json ? writer.schema(json.type, '') : undefined;
    const line = record ? writer.schema(record.type, '') : undefined;
    // those of a configuration file stand in its own page
    const isFile = (type: Type): boolean => type.kind === 'name' && /ConfigFile$/.test(type.name);
    const keysOf = (type: Type | undefined): Key[] => {
      const members = (type ? writer.parts(type) : []).filter((one) => !isFile(one)).flatMap((one) => writer.members(one));
      return [...new Set(members.map((member) => member.name))].map((key) => {
        const all = members.filter((member) => member.name === key);
        const text = all.find(({ comment }) => comment !== undefined)?.comment;
        return {
          name: key,
          text:
            text === undefined
              ? values(
                  id,
                  key,
                  all.map((one) => writer.schema(one.type, key)),
                )
              : phrase(text),
        };
      });
    };
    all.set(id, {
      schema: {
        $schema: 'https://json-schema.org/draft/2020-12/schema',
        $id: `${id.replaceAll(' ', '-')}.json`,
        title: `vioctl ${id} ${json ? '--json' : '--ndjson'}`,
        ...(json?.comment && { description: json.comment }),
        ...(root ?? { $ref: '#/$defs/record' }),
        $defs: { ...writer.defs, ...(line && { record: line }) },
      },
      keys: keysOf(json?.type),
      record: record && keysOf(record.type),
    });
  }
  return all;
}

/** An object of a configuration file, for its manual page. */
export interface FileSection {
  /** Where the object stands: `subsystems[].namespaces[]`; empty for the file itself. */
  path: string;
  text: string;
  keys: (Key & { required: boolean; kind: string })[];
}

/** The schema of a file that is read, and its keys object by object. @param type its exported name in `file` */
export function fileSchema(file: string, type: string, id: string, title: string): { schema: Json; sections: FileSection[] } {
  const types = new Types();
  const found = types.find(type, path.resolve(file))!;
  const writer = new Writer(types, true);
  const root = writer.schema(found.type, '');
  const sections: FileSection[] = [];
  const add = (at: string, of: Type, text: string): void => {
    const members = writer.members(of);
    const keys = members.map(({ name, optional, type: kind, comment }) => ({
      name,
      required: !optional,
      kind: kindOf(writer.schema(kind, name)),
      text: tagged(comment).text ?? '',
    }));
    sections.push({ path: at, text, keys });
    for (const { name, type: member } of members) {
      for (const part of member.kind === 'union' ? member.of : [member]) {
        const item = part.kind === 'array' ? part.item : part;
        for (const one of item.kind === 'union' ? item.of : [item]) {
          const declared = one.kind === 'name' ? types.find(one.name, one.file) : undefined;
          if (declared?.type.kind === 'object' && declared.type.index === undefined)
            add(`${at === '' ? '' : `${at}.`}${name}${part.kind === 'array' ? '[]' : ''}`, declared.type, declared.comment ?? '');
        }
      }
    }
  };
  add('', found.type, found.comment ?? '');
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: `${id}.json`,
    title,
    ...root,
    $defs: writer.defs,
  };
  return { schema, sections };
}
