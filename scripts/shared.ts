// Numbers that both languages share, written as C++ from the TypeScript tables: a header for each domain of native/.
import { allErrnos } from '../src/common/errno.js';
import { ramFlags } from '../src/migration/stream/format.js';
import { MapFlag, Operation, outcomeWords, requestWords } from '../src/native/iova.js';
import { bitmapOrders, maxPeek, ramFaultTable, ramStops, sourceEnds } from '../src/native/migration.js';
import { BulkWork, bulkResult, elsewhereError, FdFault, opReadWhole, readWholeOpen, Status, truncatedError } from '../src/native/uring.js';
import { DmaAccess, dmaRequestWords } from '../src/native/vfio.js';
import { maxCopied, maxTaken } from '../src/native/vhost-user.js';
import { features, type Named, registerOps, requestOps, setupFlags } from '../src/uring/abi.js';
import { featureBit, virtioBlk } from '../src/vhost-user/wire/devices.js';
import { maxRingSize, VirtioF } from '../src/vhost-user/wire/features.js';
import { nvmeWire } from './nvme-wire.js';

/** `kNoBlock` for `no-block`, `noBlock`, `no_block` and `NO_BLOCK`. */
const constant = (name: string): string =>
  `k${(name === name.toUpperCase() ? name.toLowerCase() : name).replace(/(^|[-_])(.)/g, (_, _dash, letter: string) => letter.toUpperCase())}`;
const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** A header. @param from the files that it is made from */
const header = (namespace: string, from: string, parts: readonly string[], includes: readonly string[] = ['cstdint']): string => `\
// Made by npm run gen from ${from}. Change that.
// clang-format off
#pragma once
${includes.map((name) => `#include <${name}>`).join('\n')}

namespace vioctl${namespace && `::${namespace}`} {

${parts.join('\n')}
}  // namespace vioctl${namespace && `::${namespace}`}
`;

type Value = readonly [name: string, value: number | bigint | undefined, meaning?: string];

/** An enumeration. Values that are not given count from 0. */
const enumeration = (what: string, head: string, values: readonly Value[]): string => {
  const lines = values.map(([name, value, meaning]) => {
    const number = value === undefined ? '' : ` = ${typeof value === 'bigint' ? hex(value) : value}`;
    return `  ${constant(name)}${number},${meaning === undefined ? '' : `  // ${meaning}`}`;
  });
  return `// ${what}\n${head} {\n${lines.join('\n')}\n};\n`;
};
/** An enumeration whose values cross as their names: the names are in an array beside it. */
const named = (what: string, name: string, values: readonly string[]): string =>
  [
    enumeration(
      what,
      `enum class ${name} : uint8_t`,
      values.map((value) => [value, undefined]),
    ),
    `inline constexpr const char* k${name}Names[] = {${values.map((value) => `"${value}"`).join(', ')}};\n`,
  ].join('');
const number = (what: string, type: string, name: string, value: number | bigint): string =>
  `// ${what}\ninline constexpr ${type} ${name} = ${value};\n`;
const constants = (what: string, type: string, values: readonly Value[]): string =>
  `// ${what}\n${values.map(([name, value, meaning]) => `inline constexpr ${type} ${constant(name)} = ${hex(value!)};${meaning === undefined ? '' : `  // ${meaning}`}`).join('\n')}\n`;
const pairs = (table: Readonly<Record<string, number | bigint>>): Value[] => Object.entries(table);

const errnos = allErrnos();
const common = header(
  '',
  'src/common/errno.ts',
  [
    'struct Errno {\n  int number;\n  const char* name;\n  const char* text;  // as strerror(3) has it\n};\n' +
      `inline constexpr Errno kErrnos[] = {\n${errnos.map(({ name, text }) => `    {${name}, "${name}", "${text}"},`).join('\n')}\n};\n` +
      `${errnos.map(({ name, number }) => `static_assert(${name} == ${number});`).join('\n')}\n`,
  ],
  ['cerrno'],
);

const iova = header('iova', 'src/native/iova.ts', [
  number('Words of one request: operation, va, size, iova, align, flags.', 'uint32_t', 'kRequestWords', requestWords),
  number('Words of one outcome: errno, address, alignment or size.', 'uint32_t', 'kOutcomeWords', outcomeWords),
  enumeration('What a request asks for.', 'enum Operation : uint64_t', pairs(Operation)),
  enumeration('Flags of a map request.', 'enum Flags : uint32_t', pairs(MapFlag)),
]);

const migration = header(
  'migration',
  'src/native/migration.ts and src/migration/stream/format.ts',
  [
    enumeration(
      'What can be wrong with a page record, and the value that comes with it.',
      'enum class Fault : uint8_t',
      ramFaultTable.map(([name, meaning]) => [name, undefined, meaning]),
    ),
    constants(
      "Flags in the low bits of a record's first word.",
      'uint64_t',
      ramFlags.map(([bit, name]) => [name, bit]),
    ),
    named('Why a read ended short.', 'End', sourceEnds),
    named('Why the walk over RAM records stopped.', 'Stop', ramStops),
    named(
      "In which order the bytes of a bitmap's words are read. kEither: nobody knows, and the pages come by only once.",
      'Order',
      bitmapOrders,
    ),
    number('The most bytes that can be seen ahead: the largest page with its header, or a compressed one.', 'size_t', 'kMaxNeed', maxPeek),
  ],
  ['cstddef', 'cstdint'],
);

/** What the kernel's header of 6.1 does not have. */
const newer = (table: readonly Named[]): Named[] =>
  table.filter(({ since }) => {
    const [major, minor] = since.split('.').map(Number);
    return major! > 6 || (major === 6 && minor! > 1);
  });
const abi = (what: string, type: string, prefix: string, table: readonly Named[]): string =>
  constants(
    what,
    type,
    newer(table).map(({ name, value, since }) => [`${prefix}${name}`, value, since]),
  );
const uring = header('uring', 'src/native/uring.ts', [
  enumeration('What a Bulk does with each file.', 'enum class BulkWork : uint32_t', pairs(BulkWork)),
  number(
    'Error of a file that was longer when its reading began than what could be read. Not an errno.',
    'int32_t',
    'kTruncated',
    truncatedError,
  ),
  number(
    'Error of a FIFO, a terminal or another device that a thread without a ring would wait for without an end. Not an errno.',
    'int32_t',
    'kElsewhere',
    elsewhereError,
  ),
  number('Bytes of a result, and where its digest begins.', 'uint32_t', 'kBulkResultSize', bulkResult.size) +
    `inline constexpr uint32_t kBulkDigestAt = ${bulkResult.digestAt};\n`,
  number('Opcode of an entry that reads a whole file; the kernel never sees it.', 'uint8_t', 'kOpReadWhole', opReadWhole),
  number('Flag of its completion: the file is still open.', 'uint32_t', 'kStillOpen', readWholeOpen),
  enumeration('Words of the status array after a submission.', 'enum StatusWord : uint32_t', [
    ...pairs(Status),
    ['statusWords', Object.keys(Status).length],
  ]),
  enumeration('Why a descriptor cannot be registered.', 'enum class FdFault : uint8_t', pairs(FdFault)),
]);
const uringAbi = header('uring::abi', 'src/uring/abi.ts', [
  abi('io_uring_setup flags that are newer than 6.1', 'uint32_t', 'setup_', setupFlags),
  abi('io_uring_params.features', 'uint32_t', 'feat_', features),
  abi('Request opcodes', 'uint8_t', 'op_', requestOps),
  abi('io_uring_register opcodes', 'uint32_t', '', registerOps),
]);

const vfio = header('vfio', 'src/native/vfio.ts', [
  number('Words of one DMA mapping: va, iova, size, access.', 'uint32_t', 'kDmaRequestWords', dmaRequestWords),
  enumeration('Bits of its access.', 'enum DmaAccess : uint64_t', pairs(DmaAccess)),
]);

const vhostUser = header(
  'vhost_user',
  'src/native/vhost-user.ts and src/vhost-user/wire',
  [
    constants('Feature bits that queues know.', 'uint64_t', [
      ['log-all', VirtioF.logAll],
      ['indirect-desc', VirtioF.indirect],
      ['event-idx', VirtioF.eventIdx],
      ['ring-packed', VirtioF.packed],
      ['feature-flush', featureBit('blk', 'FLUSH'), 'of virtio-blk'],
      ['feature-config-wce', featureBit('blk', 'CONFIG_WCE'), 'of virtio-blk'],
    ]),
    number('Entries of a ring.', 'uint32_t', 'kMaxQueueSize', maxRingSize),
    number("Bytes of a request's readable part that JavaScript gets.", 'uint64_t', 'kMaxCopied', maxCopied),
    number('Requests of a queue that JavaScript holds.', 'uint32_t', 'kMaxTaken', maxTaken),
    number('Unit of positions and sizes in virtio-blk.', 'uint64_t', 'kSector', virtioBlk.sector),
    number('Bytes of an answer to GET_ID.', 'size_t', 'kIdSize', virtioBlk.idSize),
  ],
  ['cstddef', 'cstdint'],
);

/** Generated C++ files by their names. */
export const sharedHeaders: ReadonlyMap<string, string> = new Map([
  ['native/common/errnos.h', common],
  ['native/iova/shared.h', iova],
  ['native/migration/shared.h', migration],
  ['native/uring/shared.h', uring],
  ['native/uring/abi_newer.h', uringAbi],
  ['native/vfio/shared.h', vfio],
  ['native/vhost_user/shared.h', vhostUser],
  ['native/nvme/wire.h', nvmeWire],
]);
