import { execFileSync } from 'node:child_process';
import path from 'node:path';

const root = path.resolve(__dirname, '..', '..');

/** Compiles a C program of the tests. @returns the binary */
export function compileC(source: string, out: string, flags: string[] = []): string {
  const cc = process.env.CC ?? 'gcc';
  execFileSync(cc, ['-O1', '-Wall', '-Wextra', '-Werror', '-pthread', ...flags, '-o', out, path.resolve(root, source)]);
  return out;
}

/**
 * Compiles a C++ program of the tests with parts of native/, with AddressSanitizer and UBSan.
 * @param sources relative to the project @returns the binary
 */
export function compileSanitized(sources: readonly string[], out: string): string {
  const cxx = process.env.CXX ?? 'g++';
  const flags = [
    ...['-std=c++20', '-O1', '-g1', '-Wall', '-Wextra', '-Werror', '-pthread', '-D_GNU_SOURCE', '-D_FILE_OFFSET_BITS=64'],
    ...['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', `-I${root}/native`],
  ];
  // a translation unit for each folder, as scripts/native.mjs has them
  const folders = [...new Set(sources.map((source) => path.dirname(source)))];
  const objects = folders.map((folder, i) => {
    const files = sources.filter((source) => path.dirname(source) === folder).map((source) => path.resolve(root, source));
    const object = `${out}-${i}.o`;
    const input = files.map((file) => `#include "${file}"\n`).join('');
    execFileSync(cxx, [...flags, '-c', '-o', object, '-x', 'c++', '-'], { input });
    return object;
  });
  execFileSync(cxx, [...flags, '-o', out, ...objects]);
  return out;
}
