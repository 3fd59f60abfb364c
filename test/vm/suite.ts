// Test files of test/native as one program for a guest.
import path from 'node:path';
import { build } from 'esbuild';

const root = path.resolve(__dirname, '..', '..');

/** @param files names of test/native without .test.ts @returns a CommonJS program; it runs in the checkout, with VIOCTL_ADDON set */
export async function suiteOf(files: readonly string[]): Promise<string> {
  const tests = files.map((file) => `describe('${file}', () => { require('./${file}.test.ts'); });`);
  const contents = ["const { run } = require('../vm/suite-runner.cjs');", ...tests, 'run();'].join('\n');
  const result = await build({
    stdin: { contents, resolveDir: path.join(root, 'test', 'native'), sourcefile: 'suite.cjs' },
    bundle: true,
    write: false,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    logLevel: 'error',
    external: ['*.node'],
    define: { 'import.meta.dirname': '__dirname', __dirname: JSON.stringify(path.join(root, 'test', 'native')) },
  });
  return result.outputFiles[0]!.text;
}
