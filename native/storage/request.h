// One request to a source, as whoever does it sees it.
#pragma once
#include <sys/uio.h>

#include <cstdint>

namespace vioctl::storage {

enum class Op : uint8_t { kRead, kWrite, kFlush, kZero, kDiscard, kCompare };

// Of a source that answers later (Store::remote()). Whoever begins it keeps it, and its memory, until done() is called:
// once, on any thread, maybe before Begin() has returned. No request waits longer than the source's time-out.
struct Request {
  Op op = Op::kRead;
  bool durable = false;          // a write, or zeroes: on stable storage before it is done
  bool deallocate = false;       // zeroes: give the space back if that is possible
  const iovec* parts = nullptr;  // of a read or write
  int count = 0;
  uint64_t offset = 0, length = 0;  // bytes; of reads and writes the sum of the parts
  int result = 0;                   // 0 or an errno, when it is done
  void (*done)(Request*) = nullptr;
  Request* link = nullptr;  // of whoever has the request
};

inline uint64_t BytesOf(const iovec* parts, int count) {
  uint64_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  return bytes;
}

}  // namespace vioctl::storage
