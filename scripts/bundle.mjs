// The program as CommonJS files from src/main.ts, one for each group of commands (dist/vioctl-GROUP.cjs) and one without
// commands for the rest (dist/vioctl.cjs: help and mistyped groups): a start reads what its command needs. Of oclif only the
// parser and the flag builders are needed; what they drag in for its own help, colours and debugging is replaced by empty
// modules. bin/run.js chooses the file.
import fs from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** Modules of oclif that the parser imports but that no path of ours runs. Each stub keeps the names it must offer. */
const stubs = {
  'lib/screen.js': 'exports.stdtermwidth = exports.errtermwidth = 80;',
  'lib/help/index.js': 'exports.loadHelpClass = () => { throw new Error("vioctl prints its own help"); };',
  'lib/logger.js':
    'const quiet = () => {}; exports.makeDebug = () => quiet; exports.getLogger = () => ({ debug: quiet, child: () => ({ debug: quiet }) });',
  'lib/ux/index.js': 'exports.colorize = (_, text) => text; exports.ux = exports;',
  'lib/ux/theme.js': 'exports.colorize = (_, text) => text;',
  'lib/util/fs.js': 'exports.dirExists = exports.fileExists = () => { throw new Error("use src/cli/flags"); };',
  'lib/errors/handle.js': 'exports.handle = (err) => { throw err; };',
  'lib/errors/warn.js': 'exports.warn = () => {}; exports.default = exports.warn;',
  'lib/errors/error.js': 'exports.error = (err) => { throw err; };',
  // As the original, but for its way of printing (clean-stack, wrap-ansi), which nothing here asks for.
  'lib/errors/errors/cli.js':
    'class CLIError extends Error { constructor(error, options = {}) { super(error instanceof Error ? error.message : error);' +
    ' this.oclif = { exit: options.exit === undefined ? 2 : options.exit }; this.code = options.code; this.suggestions = options.suggestions; } }' +
    ' exports.CLIError = CLIError; exports.addOclifExitCode = (error) => error;',
  'lib/errors/errors/pretty-print.js': 'exports.default = (err) => err.message; exports.applyPrettyPrintOptions = (err) => err;',
};
const oclif = path.join(root, 'node_modules', '@oclif', 'core');

/** Modules that a short command need not load: each use of their stand-ins loads the module, the first time. */
const late = new Set(['chalk', 'child_process', 'crypto', 'dns/promises', 'http', 'net', 'os', 'readline', 'stream', 'tty', 'zlib']);

/** A CommonJS stand-in, for those who call require(): each property loads the module. */
const lateObject = (from, names) => {
  const getters = names.map((key) => `get ${key}() { return load().${key}; }`);
  return `let it; const load = () => (it ??= require('${from}'));\nmodule.exports = { ${getters.join(', ')} };`;
};
/** The same for imports. Functions load the module when they are called; classes and constants are left to the default export. */
const lateModule = (from, exported) => {
  const names = Object.keys(exported);
  const functions = names.filter((key) => typeof exported[key] === 'function' && /^[a-z]/.test(key));
  return [
    `let it; const load = () => (it ??= require('${from}'));`,
    `export default { ${names.map((key) => `get ${key}() { return load().${key}; }`).join(', ')} };`,
    ...functions.map((key) => `export const ${key} = (...args) => load().${key}(...args);`),
  ].join('\n');
};
/** A module that is loaded at once. What nobody imports of it is dropped. */
const eagerModule = (from, names) =>
  [
    `const it = require('${from}');`,
    'export default it;',
    ...names.map((key) => `export const ${key} = /* @__PURE__ */ (() => it.${key})();`),
  ].join('\n');

/**
 * Node's modules as modules of the bundle. Left to itself, esbuild makes each import of one a copy of it, property by property:
 * two milliseconds for the node:fs of a dozen files.
 */
const nodeModules = {
  name: 'node-modules',
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^(node:)?[\w/]+$/ }, ({ path: given, namespace, kind }) => {
      const name = given.replace('node:', '');
      if (name === 'chalk') return namespace === 'late' ? undefined : { path: name, namespace: 'late' };
      if (!builtinModules.includes(name)) return undefined;
      const ours = ['late', 'lateModule', 'eagerModule'].includes(namespace);
      if (ours || kind === 'dynamic-import') return { path: `node:${name}`, external: true };
      if (kind === 'require-call') return late.has(name) ? { path: name, namespace: 'late' } : { path: `node:${name}`, external: true };
      return { path: name, namespace: late.has(name) ? 'lateModule' : 'eagerModule' };
    });
    const load = (namespace, contentsOf) =>
      onLoad({ filter: /.*/, namespace }, async ({ path: name }) => {
        const from = name === 'chalk' ? name : `node:${name}`;
        const { default: _whole, ...exported } = await import(from);
        return { contents: contentsOf(from, exported), loader: 'js', resolveDir: root };
      });
    load('late', (from, exported) => lateObject(from, Object.keys(exported)));
    load('lateModule', lateModule);
    load('eagerModule', (from, exported) => eagerModule(from, Object.keys(exported)));
  },
};

/** chalk is told its level (src/cli/output/color.ts); its own detection would load node:tty and node:os. */
const chalkLevel = {
  name: 'chalk-level',
  setup({ onLoad }) {
    const contents = 'export const createSupportsColor = () => false; export default { stdout: false, stderr: false };';
    onLoad({ filter: /chalk\/source\/vendor\/supports-color\/index\.js$/ }, () => ({ contents, loader: 'js' }));
  },
};

const oclifParserOnly = {
  name: 'oclif-parser-only',
  setup({ onLoad }) {
    onLoad({ filter: /@oclif\/core\/lib\/.*\.js$/ }, ({ path: file }) => {
      const contents = stubs[path.relative(oclif, file)] ?? stubs[file.slice(file.lastIndexOf('@oclif/core/') + '@oclif/core/'.length)];
      return contents === undefined ? undefined : { contents, loader: 'js' };
    });
  },
};

/** Leaves out the commands of all groups but one; the table with their summaries stays. */
const onlyGroup = (group) => ({
  name: 'only-group',
  setup({ onResolve }) {
    onResolve({ filter: /^\.\.\/commands\// }, ({ path: file }) =>
      file.split('/')[2] === group ? undefined : { path: file, external: true },
    );
  },
});

/** Without comments and blanks: comments would also be the only text outside of ASCII, which V8 keeps at twice the size. */
const small = { minifyWhitespace: true, minifySyntax: true, legalComments: 'none' }; // dist/NOTICES.txt holds the licences

const common = {
  ...small,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  metafile: true,
  external: ['esprima'], // js-yaml tries it for functions in YAML, which it is never asked for
  banner: { js: "'use strict';" },
};

const groups = fs.readdirSync(path.join(root, 'src', 'commands'));
const bundleOf = (group) => path.join(root, 'dist', group === undefined ? 'vioctl.cjs' : `vioctl-${group}.cjs`);
const results = await Promise.all(
  [undefined, ...groups].map((group) =>
    build({
      ...common,
      entryPoints: [path.join(root, 'src', 'main.ts')],
      outfile: bundleOf(group),
      define: { 'import.meta.dirname': '__dirname', 'process.env.VIOCTL_BUNDLED': '"1"' },
      plugins: [nodeModules, chalkLevel, oclifParserOnly, onlyGroup(group)],
    }),
  ),
);

// The thread that decompresses zstd.
await build({
  ...common,
  entryPoints: [path.join(root, 'src', 'migration', 'containers', 'zstd-worker.ts')],
  outfile: path.join(root, 'dist', 'vioctl-zstd-worker.cjs'),
  define: { 'import.meta.dirname': '__dirname' },
});

// The programming interface `vioctl/uring`: a bundle of its own, and its types.
await build({
  ...common,
  entryPoints: [path.join(root, 'src', 'uring', 'index.ts')],
  outfile: path.join(root, 'dist', 'uring.cjs'),
  define: { 'import.meta.dirname': '__dirname' },
});

// The commands for stock oclif and its tools.
await build({
  ...common,
  banner: {
    js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url),__dirname=import.meta.dirname;",
  },
  format: 'esm',
  entryPoints: [path.join(root, 'src', 'stock.ts')],
  outfile: path.join(root, 'dist', 'oclif.mjs'),
  define: { 'import.meta.dirname': '__dirname', 'process.env.VIOCTL_BUNDLED': '"1"' },
  plugins: [oclifParserOnly],
});

// Licences of what the bundles and the addon contain: dist/NOTICES.txt.
const packages = new Set(['node-addon-api']);
for (const { metafile } of results)
  for (const input of Object.keys(metafile.inputs)) {
    const name = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
    if (name !== undefined) packages.add(name);
  }
packages.add('xxhash-addon'); // its xxHash/xxhash.h is compiled into the addon
const notices = [...packages].sort().map((name) => {
  const at = path.join(root, 'node_modules', name);
  const { version, license } = JSON.parse(fs.readFileSync(path.join(at, 'package.json'), 'utf8'));
  const file = fs.readdirSync(at).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${name}: no licence text to ship`);
  return `${name} ${version} (${license})\n\n${fs.readFileSync(path.join(at, file), 'utf8').trim()}\n`;
});
notices.push('BLAKE3 reference implementation in C (CC0-1.0 OR Apache-2.0, used under CC0-1.0), by the BLAKE3 team\n');
fs.writeFileSync(path.join(root, 'dist', 'NOTICES.txt'), `vioctl contains:\n\n${notices.join(`\n${'-'.repeat(80)}\n\n`)}`);

// The same as a bill of materials for scanners: CycloneDX 1.6. No time and no random number, so that equal builds are equal.
const own = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
const purl = (name, version) => `pkg:npm/${name.replace('@', '%40')}@${version}`;
const lock = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
const component = (name) => {
  const { version, license, description } = JSON.parse(fs.readFileSync(path.join(root, 'node_modules', name, 'package.json'), 'utf8'));
  const { integrity = '' } = lock[`node_modules/${name}`] ?? {};
  const sha512 = /^sha512-(.*)$/.exec(integrity)?.[1];
  return {
    type: 'library',
    'bom-ref': purl(name, version),
    name,
    version,
    ...(description && { description }),
    // Its C code has terms of its own.
    licenses: [{ expression: name === '@c4312/blake3-native' ? `${license} AND (CC0-1.0 OR Apache-2.0)` : license }],
    purl: purl(name, version),
    ...(sha512 && { hashes: [{ alg: 'SHA-512', content: Buffer.from(sha512, 'base64').toString('hex') }] }),
  };
};
const components = [...packages, '@c4312/blake3-native'].sort().map(component);
const application = {
  type: 'application',
  'bom-ref': purl(own.name, own.version),
  name: own.name,
  version: own.version,
  purl: purl(own.name, own.version),
};
const bom = {
  $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
  bomFormat: 'CycloneDX',
  specVersion: '1.6',
  version: 1,
  metadata: { component: { ...application, licenses: [{ expression: own.license }] } },
  components,
  dependencies: [
    { ref: application['bom-ref'], dependsOn: components.map((one) => one['bom-ref']) },
    ...components.map((one) => ({ ref: one['bom-ref'] })),
  ],
};
fs.writeFileSync(path.join(root, 'dist', 'sbom.cdx.json'), `${JSON.stringify(bom, undefined, 2)}\n`);
