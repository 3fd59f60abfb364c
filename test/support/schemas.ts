// JSON of real runs against the schemas, which allow nothing that they do not name.
import fs from 'node:fs';
import path from 'node:path';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { program } from './cli.js';

export const schemas = path.join(path.resolve(program, '..', '..'), 'schemas');
export type Json = Record<string, unknown>;
export const schemaOf = (id: string): Json => JSON.parse(fs.readFileSync(path.join(schemas, `${id.replaceAll(' ', '-')}.json`), 'utf8'));

/** The schema without room for unknown keys: a new key without a word in the schema fails here. */
export function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (schema === null || typeof schema !== 'object') return schema;
  const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, strict(value)]));
  return copy.type === 'object' && copy.properties !== undefined && !('additionalProperties' in copy)
    ? { ...copy, additionalProperties: false }
    : copy;
}

export const ajv = new Ajv2020({ allErrors: true, strict: true, strictRequired: false, allowUnionTypes: true, strictTypes: false });
const validators = new Map<string, ValidateFunction>();
export function validator(id: string, record: boolean): ValidateFunction {
  const key = `${id} ${record}`;
  const known = validators.get(key);
  if (known) return known;
  const { $id: _i, ...schema } = strict(schemaOf(id)) as Json;
  const { record: line, ...defs } = schema.$defs as Record<string, Json>;
  const made = ajv.compile(record ? { ...line, $defs: defs } : schema);
  validators.set(key, made);
  return made;
}

/** Checks one value, and says which part of it the schema does not know. */
export function checkJson(id: string, value: unknown, record = false): void {
  const validate = validator(id, record);
  const valid = validate(value);
  const why = (validate.errors ?? []).map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`);
  expect({ id, why: valid ? [] : why.slice(0, 8) }).toEqual({ id, why: [] });
}
