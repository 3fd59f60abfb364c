// Reads the TypeScript types of documents, with their comments, as far as JSON Schema can say them. TypeScript 7 has no
// interface for this, and the types use a small part of the language.
import fs from 'node:fs';
import path from 'node:path';

export type Type =
  | { kind: 'name'; name: string; args: Type[]; file: string }
  | { kind: 'literal'; value: string | number | boolean | null }
  | { kind: 'array'; item: Type }
  | { kind: 'tuple'; items: Type[] }
  | { kind: 'union' | 'both'; of: Type[] }
  | { kind: 'index'; of: Type; key: Type }
  | { kind: 'object'; members: Member[]; index?: Type | undefined; extends: Type[] };

export interface Member {
  name: string;
  optional: boolean;
  type: Type;
  comment: string | undefined;
}

export interface Declaration {
  name: string;
  type: Type;
  comment: string | undefined;
}

interface Token {
  kind: 'word' | 'string' | 'number' | 'mark' | 'comment' | 'end';
  text: string;
}

const lexer =
  /\/\*\*([\s\S]*?)\*\/|\/\/.*|\/\*[\s\S]*?\*\/|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(0x[\da-fA-F]+|\d[\d_.]*)|([A-Za-z_$][\w$]*)|(=>|\.\.\.|[^\s\w])/g;

function tokens(text: string): Token[] {
  const found: Token[] = [];
  for (const [whole, comment, single, double, number, word, mark] of text.matchAll(lexer)) {
    if (comment !== undefined) found.push({ kind: 'comment', text: words(comment) });
    else if (single !== undefined || double !== undefined) found.push({ kind: 'string', text: single ?? double! });
    else if (number !== undefined) found.push({ kind: 'number', text: number });
    else if (word !== undefined) found.push({ kind: 'word', text: word });
    else if (mark !== undefined) found.push({ kind: 'mark', text: mark });
    else if (!whole.startsWith('/')) throw new Error(`cannot read ${whole}`);
  }
  return [...found, { kind: 'end', text: '' }];
}

/** A comment without its stars. */
const words = (comment: string): string =>
  comment
    .split('\n')
    .map((line) => line.replace(/^\s*\*?\s?/, '').trimEnd())
    .join(' ')
    .trim();

/** A recursive descent over the tokens of one type. */
class Reader {
  readonly #tokens: Token[];
  readonly #file: string;
  #at = 0;

  constructor(text: string, file: string) {
    this.#tokens = tokens(text);
    this.#file = file;
  }

  #peek(text?: string): boolean | Token {
    let i = this.#at;
    while (this.#tokens[i]!.kind === 'comment') i++;
    return text === undefined ? this.#tokens[i]! : this.#tokens[i]!.text === text && this.#tokens[i]!.kind !== 'string';
  }

  #next(): Token {
    while (this.#tokens[this.#at]!.kind === 'comment') this.#at++;
    return this.#tokens[this.#at++]!;
  }

  #take(text: string): boolean {
    if (!this.#peek(text)) return false;
    this.#next();
    return true;
  }

  #want(text: string): void {
    const token = this.#next();
    if (token.text !== text) throw new Error(`${this.#file}: expected ${text}, not ${token.text}`);
  }

  /** `A | B & C[]` */
  type(): Type {
    this.#take('|');
    const of = [this.#both()];
    while (this.#take('|')) of.push(this.#both());
    return of.length === 1 ? of[0]! : { kind: 'union', of };
  }

  #both(): Type {
    const of = [this.#postfix()];
    while (this.#take('&')) of.push(this.#postfix());
    return of.length === 1 ? of[0]! : { kind: 'both', of };
  }

  #postfix(): Type {
    let type = this.#primary();
    while (this.#take('[')) {
      if (this.#take(']')) type = { kind: 'array', item: type };
      else {
        type = { kind: 'index', of: type, key: this.type() };
        this.#want(']');
      }
    }
    return type;
  }

  #primary(): Type {
    const token = this.#next();
    if (token.kind === 'string') return { kind: 'literal', value: token.text };
    if (token.kind === 'number') return { kind: 'literal', value: Number(token.text.replaceAll('_', '')) };
    if (token.text === '{') return this.#members();
    if (token.text === '[') return this.#tuple();
    if (token.text === '(') {
      const type = this.type();
      this.#want(')');
      return type;
    }
    if (token.text === 'readonly' || token.text === 'keyof') return this.#postfix();
    if (token.text === 'typeof') {
      this.#next();
      return { kind: 'name', name: 'unknown', args: [], file: this.#file };
    }
    if (token.text === 'true' || token.text === 'false') return { kind: 'literal', value: token.text === 'true' };
    if (token.text === 'null') return { kind: 'literal', value: null };
    if (token.kind !== 'word') throw new Error(`${this.#file}: a type cannot begin with ${token.text}`);
    const args: Type[] = [];
    if (this.#take('<')) {
      do args.push(this.type());
      while (this.#take(','));
      this.#want('>');
    }
    return { kind: 'name', name: token.text, args, file: this.#file };
  }

  #tuple(): Type {
    const items: Type[] = [];
    while (!this.#take(']')) {
      const named = this.#peek() as Token;
      // A label: [first: number, end: number]
      if (named.kind === 'word' && this.#tokens[this.#at + 1]?.text === ':') {
        this.#next();
        this.#next();
      }
      items.push(this.type());
      this.#take(',');
    }
    return { kind: 'tuple', items };
  }

  #members(): Type {
    const members: Member[] = [];
    let index: Type | undefined;
    for (;;) {
      let comment: string | undefined;
      while (this.#tokens[this.#at]!.kind === 'comment') comment = this.#tokens[this.#at++]!.text;
      if (this.#take('}')) return { kind: 'object', members, index, extends: [] };
      let token = this.#next();
      // A modifier, unless it is the name of a member.
      if (token.text === 'readonly' && !this.#peek(':') && !this.#peek('?')) token = this.#next();
      if (token.text === '[') {
        while (!this.#take(']')) this.#next();
        this.#want(':');
        index = this.type();
      } else {
        const optional = this.#take('?');
        if (this.#peek('(')) {
          this.#skipMethod();
          continue;
        }
        this.#want(':');
        members.push({ name: token.text, optional, type: this.type(), comment });
      }
      if (!this.#take(';')) this.#take(',');
    }
  }

  #skipMethod(): void {
    while (!this.#take(';')) this.#next();
  }

  /** The rest of `interface X extends Y {…}` behind its name, or of `type X = …`. */
  declaration(kind: string): Type {
    if (kind === 'type') {
      this.#want('=');
      return this.type();
    }
    const bases: Type[] = [];
    if (this.#take('extends')) {
      do bases.push(this.#postfix());
      while (this.#take(','));
    }
    this.#want('{');
    return { ...(this.#members() as Type & { kind: 'object' }), extends: bases };
  }
}

interface Source {
  text: string;
  imports: Map<string, string>;
  declarations: Map<string, Declaration>;
}

/** Declarations of source files, followed through their imports. */
export class Types {
  readonly #sources = new Map<string, Source>();

  #source(file: string): Source {
    const known = this.#sources.get(file);
    if (known) return known;
    const text = fs.readFileSync(file, 'utf8');
    const imports = new Map<string, string>();
    for (const [, names, from] of text.matchAll(/(?:import|export)\s+(?:type\s+)?\{([^}]*)\}\s+from\s+'(\.[^']*)'/g)) {
      const target = path.resolve(path.dirname(file), from!.replace(/\.js$/, '.ts'));
      for (const name of names!.split(','))
        imports.set(
          name
            .replace(/\btype\b/, '')
            .trim()
            .split(' as ')
            .at(-1)!
            .trim(),
          target,
        );
    }
    const source = { text, imports, declarations: new Map<string, Declaration>() };
    this.#sources.set(file, source);
    return source;
  }

  /** Names of what a file exports as types. */
  names(file: string): string[] {
    return [...this.#source(file).text.matchAll(/^export (?:interface|type) (\w+)/gm)].map((match) => match[1]!);
  }

  /** The declaration of a name as a file sees it; undefined for what no source file has. */
  find(name: string, file: string): Declaration | undefined {
    const source = this.#source(file);
    const known = source.declarations.get(name);
    if (known) return known;
    const match = new RegExp(`(?:/\\*\\*((?:(?!\\*/)[\\s\\S])*)\\*/\\s*\\n)?^(?:export )?(interface|type) ${name}\\b`, 'm').exec(
      source.text,
    );
    if (match) {
      const rest = source.text.slice(match.index + match[0].length);
      const type = new Reader(rest, file).declaration(match[2]!);
      const found = { name, type, comment: match[1] === undefined ? undefined : words(match[1]) };
      source.declarations.set(name, found);
      return found;
    }
    const from = source.imports.get(name);
    return from === undefined ? undefined : this.find(name, from);
  }
}
