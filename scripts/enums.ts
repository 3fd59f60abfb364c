// Enumerations that both languages share, written as C++ from the TypeScript tables.
import { ramFaultTable } from '../src/native/migration.js';

/** `kNoBlock` for `no-block`. */
const constant = (name: string): string => `k${name.replace(/(^|-)(.)/g, (_, _dash, letter: string) => letter.toUpperCase())}`;

/** A header with one enumeration. */
const header = (namespace: string, name: string, from: string, values: readonly (readonly [name: string, meaning: string])[]): string => `\
// Made by npm run gen from ${from}. Change that file.
#pragma once
#include <cstdint>

namespace vioctl::${namespace} {

enum class ${name} : uint8_t {
${values.map(([value, meaning]) => `  // ${meaning}\n  ${constant(value)},`).join('\n')}
};

}  // namespace vioctl::${namespace}
`;

/** Generated C++ files by their names. */
export const enums: ReadonlyMap<string, string> = new Map([
  ['native/migration/faults.h', header('migration', 'Fault', 'ramFaultTable of src/native/migration.ts', ramFaultTable)],
]);
