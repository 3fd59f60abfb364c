import fs from 'node:fs';
import path from 'node:path';
import { Exit, VioError, wrap } from '../errors.js';
import { printable } from '../escape.js';
import { parseJson } from '../json.js';

/** Largest file that is read, in bytes. */
export const maxConfigBytes = 16 << 20;

/** A configuration as it came, with what its relative names are relative to. */
export interface ConfigText {
  text: string;
  /** Of the file, for errors. */
  name: string;
  folder: string;
}

/**
 * Reads a document, JSON or YAML: by the name of its file, or by how it begins.
 * @returns its value, and whether its numbers, true and false are texts, as in YAML
 * @throws VioError (2) with the place of what is wrong
 */
export async function parseDocument({ text, name }: ConfigText): Promise<{ value: unknown; texts: boolean }> {
  const json = /\.json$/i.test(name) || (!/\.ya?ml$/i.test(name) && /^\s*([[{]|$)/.test(text));
  const value: unknown = json ? parseJson(text, name, Exit.usage) : await parseYaml(text, name);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new VioError(`${printable(name)}: not a configuration: no keys and values`, {
      code: 'CONFIG',
      exit: Exit.usage,
      hint: 'a configuration is JSON, or YAML with lines such as "key: value"',
    });
  return { value, texts: !json };
}

async function parseYaml(text: string, name: string): Promise<unknown> {
  const { load } = await import('./yaml.js');
  return load(text, name, Exit.usage);
}

/** Reads a file, or standard input (`-`), whose names are relative to the current folder. @throws VioError */
export function readConfigText(file: string): ConfigText {
  const name = file === '-' ? 'stdin' : file;
  let text: string;
  try {
    text = fs.readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (err) {
    throw wrap(file === '-' ? 'stdin' : `read ${printable(file)}`, err);
  }
  if (Buffer.byteLength(text) > maxConfigBytes)
    throw new VioError(`${printable(name)}: larger than ${maxConfigBytes} bytes`, { code: 'EFBIG', exit: Exit.usage });
  return { text, name, folder: file === '-' ? process.cwd() : path.dirname(path.resolve(file)) };
}
