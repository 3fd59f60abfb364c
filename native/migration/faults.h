// Made by npm run gen from ramFaultTable of src/native/migration.ts. Change that file.
#pragma once
#include <cstdint>

namespace vioctl::migration {

enum class Fault : uint8_t {
  // a combination that no QEMU writes; value: the word
  kFlags,
  // CONTINUE before any name
  kNoBlock,
  // a name that MEM_SIZE did not list
  kUnknownBlock,
  // page address at or behind the block's end; value: the address
  kOutside,
  // ZERO record with a fill byte other than 0; value: the byte
  kFill,
  // encoding byte is not 1 or the length is above the page size; value: encoding << 16 | length
  kXbzrleHeader,
  // runs do not fit the page; value: length
  kXbzrle,
  // no earlier content to apply the delta to
  kXbzrleBase,
  // length above what a page can need; value: length
  kZlibLength,
  // does not inflate to one page; value: bytes made
  kZlib,
  // a mapped-ram bitmap has bits behind the last page; value: how many
  kSpareBits,
  // a mapped-ram bitmap has more scattered pages than the maps have room for
  kUntracked,
  // a mapped-ram bitmap is big-endian, which came out behind pages that Readings had no room for
  kOrder,
};

}  // namespace vioctl::migration
