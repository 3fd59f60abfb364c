// A TypeScript program of the tests for use inside a guest: one file, so that the guest neither compiles nor searches modules.
import path from 'node:path';
import { buildSync } from 'esbuild';
import { checkoutRoot } from './cache.js';

/** The program's text as CommonJS, for GuestOptions.files. It finds the checkout's addon and bundle. @param file below test/vm */
export function program(file: string): string {
  const root = checkoutRoot();
  const result = buildSync({
    entryPoints: [path.join(root, 'test/vm', file)],
    bundle: true,
    write: false,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    define: {
      'import.meta.dirname': JSON.stringify(path.join(root, 'src', 'native')),
      __dirname: JSON.stringify(path.join(root, 'test', 'support')),
    },
  });
  return result.outputFiles[0]!.text;
}
