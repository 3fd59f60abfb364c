// jest transform: one esbuild call per file, TypeScript or ESM in, CommonJS out.
const { transformSync } = require('esbuild');
const { createHash } = require('node:crypto');
const { readFileSync } = require('node:fs');

const self = readFileSync(__filename);
const options = (file) => ({
  loader: file.endsWith('.ts') ? 'ts' : 'js',
  format: 'cjs',
  target: 'node20',
  supported: { 'dynamic-import': false }, // jest runs CommonJS: import() becomes require()
  sourcemap: 'inline',
  sourcefile: file,
  define: { 'import.meta.dirname': '__dirname' },
});

module.exports = {
  process: (source, file) => ({ code: transformSync(source, options(file)).code }),
  getCacheKey: (source, file) => createHash('sha1').update(self).update(file).update('\0').update(source).digest('hex'),
};
