// One CommonJS file from src/main.ts: dist/vioctl.cjs. Of oclif only the parser and the flag builders are needed;
// what they drag in for its own help, colours and debugging is replaced by empty modules (start-up time).
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** Modules of oclif that the parser imports but that no path of ours runs. Each stub keeps the names it must offer. */
const stubs = {
  'lib/help/index.js': 'exports.loadHelpClass = () => { throw new Error("vioctl prints its own help"); };',
  'lib/logger.js':
    'const quiet = () => {}; exports.makeDebug = () => quiet; exports.getLogger = () => ({ debug: quiet, child: () => ({ debug: quiet }) });',
  'lib/ux/index.js': 'exports.colorize = (_, text) => text; exports.ux = exports;',
  'lib/ux/theme.js': 'exports.colorize = (_, text) => text;',
  'lib/util/fs.js': 'exports.dirExists = exports.fileExists = () => { throw new Error("use src/cli/flags"); };',
  'lib/errors/handle.js': 'exports.handle = (err) => { throw err; };',
  'lib/errors/warn.js': 'exports.warn = () => {}; exports.default = exports.warn;',
  'lib/errors/error.js': 'exports.error = (err) => { throw err; };',
  'lib/errors/errors/pretty-print.js': 'exports.default = (err) => err.message; exports.applyPrettyPrintOptions = (err) => err;',
};
const oclif = path.join(root, 'node_modules', '@oclif', 'core');

await build({
  entryPoints: [path.join(root, 'src', 'main.ts')],
  outfile: path.join(root, 'dist', 'vioctl.cjs'),
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  legalComments: 'none',
  define: { 'import.meta.url': '__importMetaUrl', 'process.env.VIOCTL_BUNDLED': '"1"' },
  banner: { js: "'use strict';const __importMetaUrl=require('node:url').pathToFileURL(__filename).href;" },
  plugins: [
    {
      name: 'oclif-parser-only',
      setup: ({ onLoad }) =>
        onLoad({ filter: /@oclif\/core\/lib\/.*\.js$/ }, ({ path: file }) => {
          const contents = stubs[path.relative(oclif, file)] ?? stubs[file.slice(file.lastIndexOf('@oclif/core/') + '@oclif/core/'.length)];
          return contents === undefined ? undefined : { contents, loader: 'js' };
        }),
    },
  ],
});

// The programming interface `vioctl/uring`: a bundle of its own, and its types.
await build({
  entryPoints: [path.join(root, 'src', 'uring', 'index.ts')],
  outfile: path.join(root, 'dist', 'uring.cjs'),
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  legalComments: 'none',
  define: { 'import.meta.url': '__importMetaUrl' },
  banner: { js: "'use strict';const __importMetaUrl=require('node:url').pathToFileURL(__filename).href;" },
});
