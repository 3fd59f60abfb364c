import { execFileSync } from 'node:child_process';
import path from 'node:path';

/** Compiles a C program of the tests. @returns the binary */
export function compileC(source: string, out: string, flags: string[] = []): string {
  const cc = process.env.CC ?? 'gcc';
  execFileSync(cc, ['-O1', '-Wall', '-Wextra', '-Werror', '-pthread', ...flags, '-o', out, path.resolve(__dirname, '..', '..', source)]);
  return out;
}
