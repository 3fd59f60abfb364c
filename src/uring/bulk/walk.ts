import { isUtf8 } from 'node:buffer';
import fs from 'node:fs';
import path from 'node:path';
import type { Name } from './name.js';

/** Names that leave together. */
const batchSize = 512;

/**
 * Replaces folders by the regular files below them, in the order of their bytes. Symbolic links are followed where they
 * are given by name, and not below a folder; FIFOs, sockets and devices below one are left out. A folder that cannot be read
 * stays as it is, so that reading it says why.
 */
export async function* filesBelow(names: AsyncIterable<Name[]>): AsyncGenerator<Name[]> {
  let batch: Name[] = [];
  for await (const given of names) {
    for (const name of given) {
      for await (const file of isFolder(name) ? walk(name) : [name]) {
        batch.push(file);
        if (batch.length < batchSize) continue;
        yield batch;
        batch = [];
      }
    }
    if (batch.length > 0) yield batch;
    batch = [];
  }
}

const isFolder = (name: Name): boolean => {
  try {
    return fs.statSync(name).isDirectory();
  } catch {
    return false; // reading it will say why
  }
};

async function* walk(folder: Name): AsyncGenerator<Name> {
  let entries: fs.Dirent<Buffer>[];
  try {
    entries = await fs.promises.readdir(folder, { withFileTypes: true, encoding: 'buffer' });
  } catch {
    yield folder;
    return;
  }
  const bytes = typeof folder === 'string' ? Buffer.from(folder) : folder;
  const prefix = bytes.at(-1) === 0x2f ? bytes : Buffer.concat([bytes, Buffer.from(path.sep)]);
  for (const entry of entries.sort((a, b) => Buffer.compare(a.name, b.name))) {
    const at = Buffer.concat([prefix, entry.name]);
    const name = isUtf8(at) ? at.toString('utf8') : at;
    if (entry.isDirectory()) yield* walk(name);
    else if (entry.isFile()) yield name;
  }
}
