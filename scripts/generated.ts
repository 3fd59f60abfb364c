// Everything that `npm run gen` writes.
import fs from 'node:fs';
import { allCommands, generated } from '../src/cli/help/man.js';
import { documentSchemas } from './schemas/schema.js';
import { sharedHeaders } from './shared.js';

/** All generated files: path below the repository's root and text. Runs in the root. */
export async function allGenerated(): Promise<Map<string, string>> {
  const ids = (await allCommands()).map(({ doc }) => doc.id);
  const documents = documentSchemas(ids);
  return new Map([
    ...(await generated(fs.readFileSync('README.md', 'utf8'), documents)),
    ...sharedHeaders,
    ...[...documents].map(
      ([id, { schema }]) => [`schemas/${id.replaceAll(' ', '-')}.json`, `${JSON.stringify(schema, undefined, 2)}\n`] as const,
    ),
  ]);
}
