// Made by npm run gen from src/native/migration.ts and src/migration/stream/format.ts. Change that.
// clang-format off
#pragma once
#include <cstddef>
#include <cstdint>

namespace vioctl::migration {

// What can be wrong with a page record, and the value that comes with it.
enum class Fault : uint8_t {
  kFlags,  // a combination that no QEMU writes; value: the word
  kNoBlock,  // CONTINUE before any name
  kUnknownBlock,  // a name that MEM_SIZE did not list
  kOutside,  // page address at or behind the block's end; value: the address
  kFill,  // ZERO record with a fill byte other than 0; value: the byte
  kXbzrleHeader,  // encoding byte is not 1 or the length is above the page size; value: encoding << 16 | length
  kXbzrle,  // runs do not fit the page; value: length
  kXbzrleBase,  // no earlier content to apply the delta to
  kZlibLength,  // length above what a page can need; value: length
  kZlib,  // does not inflate to one page; value: bytes made
  kSpareBits,  // a mapped-ram bitmap has bits behind the last page; value: how many
  kUntracked,  // a mapped-ram bitmap has more scattered pages than the maps have room for
  kOrder,  // a mapped-ram bitmap is big-endian, which came out behind pages that Readings had no room for
};

// Flags in the low bits of a record's first word.
inline constexpr uint64_t kFull = 0x1;
inline constexpr uint64_t kZero = 0x2;
inline constexpr uint64_t kMemSize = 0x4;
inline constexpr uint64_t kPage = 0x8;
inline constexpr uint64_t kEos = 0x10;
inline constexpr uint64_t kContinue = 0x20;
inline constexpr uint64_t kXbzrle = 0x40;
inline constexpr uint64_t kHook = 0x80;
inline constexpr uint64_t kCompressPage = 0x100;
inline constexpr uint64_t kMultifdFlush = 0x200;

// Why a read ended short.
enum class End : uint8_t {
  kNone,
  kEof,
  kIo,
  kLimit,
};
inline constexpr const char* kEndNames[] = {"none", "eof", "io", "limit"};

// Why the walk over RAM records stopped.
enum class Stop : uint8_t {
  kEos,
  kBudget,
  kMemSize,
  kBad,
  kEnd,
};
inline constexpr const char* kStopNames[] = {"eos", "budget", "memSize", "bad", "end"};

// In which order the bytes of a bitmap's words are read. kEither: nobody knows, and the pages come by only once.
enum class Order : uint8_t {
  kLittle,
  kBig,
  kEither,
};
inline constexpr const char* kOrderNames[] = {"little", "big", "either"};

// The most bytes that can be seen ahead: the largest page with its header, or a compressed one.
inline constexpr size_t kMaxNeed = 131072;

}  // namespace vioctl::migration
