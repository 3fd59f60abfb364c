// Made by npm run gen from src/native/uring.ts. Change that.
// clang-format off
#pragma once
#include <cstdint>

namespace vioctl::uring {

// What a Bulk does with each file.
enum class BulkWork : uint32_t {
  kSum = 0,
  kSync = 1,
  kDataSync = 2,
};

// Error of a file that was longer when its reading began than what could be read. Not an errno.
inline constexpr int32_t kTruncated = -4096;

// Error of a FIFO, a terminal or another device that a thread without a ring would wait for without an end. Not an errno.
inline constexpr int32_t kElsewhere = -4097;

// Bytes of a result, and where its digest begins.
inline constexpr uint32_t kBulkResultSize = 80;
inline constexpr uint32_t kBulkDigestAt = 16;

// Opcode of an entry that reads a whole file; the kernel never sees it.
inline constexpr uint8_t kOpReadWhole = 240;

// Flag of its completion: the file is still open.
inline constexpr uint32_t kStillOpen = 32768;

// Words of the status array after a submission.
enum StatusWord : uint32_t {
  kTaken = 0,
  kError = 1,
  kMore = 2,
  kOverflows = 3,
  kInFlight = 4,
  kEnters = 5,
  kAgain = 6,
  kStatusWords = 7,
};

// Why a descriptor cannot be registered.
enum class FdFault : uint8_t {
  kNone = 0,
  kClosed = 1,
  kRing = 2,
  kPath = 3,
  kNegative = 4,
};

}  // namespace vioctl::uring
