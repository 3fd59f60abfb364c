// Everything that `npm run gen` writes.
import fs from 'node:fs';
import { allCommands, generated } from '../src/cli/help/man.js';
import { configPage } from './config-page.js';
import { documentSchemas, fileSchema } from './schemas/schema.js';
import { sharedHeaders } from './shared.js';

/** All generated files: path below the repository's root and text. Runs in the root. */
export async function allGenerated(): Promise<Map<string, string>> {
  const ids = (await allCommands()).map(({ doc }) => doc.id);
  const documents = documentSchemas(ids);
  const config = fileSchema(
    'src/nvme/target/config/description.ts',
    'ConfigFile',
    'nvmf-config',
    'configuration file of vioctl nvmf serve',
  );
  return new Map([
    ...(await generated(fs.readFileSync('README.md', 'utf8'), documents)),
    ...sharedHeaders,
    ['man/vioctl-nvmf.5', configPage(config.sections)],
    ['schemas/nvmf-config.json', `${JSON.stringify(config.schema, undefined, 2)}\n`],
    ...[...documents].map(
      ([id, { schema }]) => [`schemas/${id.replaceAll(' ', '-')}.json`, `${JSON.stringify(schema, undefined, 2)}\n`] as const,
    ),
  ]);
}
