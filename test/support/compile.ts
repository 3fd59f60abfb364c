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
    ...['-std=c++20', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-pthread', '-D_GNU_SOURCE', '-D_FILE_OFFSET_BITS=64'],
    ...['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', `-I${root}/native`],
  ];
  // one by one, as a compiler cache wants them
  const objects = sources.map((source, i) => {
    const object = `${out}-${i}.o`;
    execFileSync(cxx, [...flags, '-c', '-o', object, path.resolve(root, source)]);
    return object;
  });
  execFileSync(cxx, [...flags, '-o', out, ...objects]);
  return out;
}
