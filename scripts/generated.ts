// Everything that `npm run gen` writes.
import fs from 'node:fs';
import { allCommands, generated } from '../src/cli/help/man.js';
import { configPage, nvmfPage } from './config-page.js';
import { vhostUserPage } from './config-page-vhost-user.js';
import { documentSchemas, fileSchema } from './schemas/schema.js';
import { sharedHeaders } from './shared.js';

/** All generated files: path below the repository's root and text. Runs in the root. */
export async function allGenerated(): Promise<Map<string, string>> {
  const ids = (await allCommands()).map(({ doc }) => doc.id);
  const documents = documentSchemas(ids);
  const files = [
    { page: nvmfPage, id: 'nvmf-config', type: 'ConfigFile', description: 'src/nvme/target/config/description.ts' },
    { page: vhostUserPage, id: 'vhost-user-config', type: 'BlkConfigFile', description: 'src/vhost-user/blk/config/description.ts' },
  ].map((file) => ({ ...file, ...fileSchema(file.description, file.type, file.id, file.page.summary) }));
  return new Map([
    ...(await generated(fs.readFileSync('README.md', 'utf8'), documents)),
    ...sharedHeaders,
    ...files.map(({ page, sections }) => [`man/${page.name}.5`, configPage(page, sections)] as const),
    ...files.map(({ id, schema }) => [`schemas/${id}.json`, `${JSON.stringify(schema, undefined, 2)}\n`] as const),
    ...[...documents].map(
      ([id, { schema }]) => [`schemas/${id.replaceAll(' ', '-')}.json`, `${JSON.stringify(schema, undefined, 2)}\n`] as const,
    ),
  ]);
}
