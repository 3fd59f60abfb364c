// What a server has acknowledged and not yet flushed: kept here, so that it can be written again, in the order of the
// answers, to a server that has died meanwhile and may have lost it. NFS clients do the same with writes until COMMIT
// (RFC 1813, 3.3.21). Of one thread.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "storage/request.h"

namespace vioctl::storage {

class Unflushed {
 public:
  static constexpr uint64_t kMost = 64 << 20;   // bytes that are kept; then no write begins until a flush has ended
  static constexpr uint64_t kMuch = kMost / 2;  // a flush is due, whether somebody asks for one or not
  static constexpr uint64_t kEntry = 1024;      // what an entry counts beside its data: commands to write it take time

  struct Entry {
    Op op;
    bool deallocate, durable;
    uint64_t offset, length, number;  // numbers have no gaps
    std::vector<std::byte> data;      // of a write
  };

  // An acknowledged change. `parts`, from byte `skip` on, are the data of a write. One that is durable already is kept
  // where an older one is, which must not come after it, and has to be written as durably again. Throws std::bad_alloc.
  void Add(Op op, bool deallocate, bool durable, uint64_t offset, uint64_t length, const iovec* parts, uint64_t skip);
  // All that was added so far, for Flushed() when a flush that begins now has succeeded.
  uint64_t Mark() const { return last_; }
  void Flushed(uint64_t mark);
  void Clear() { Flushed(last_); }

  bool empty() const { return entries_.empty(); }
  bool wants_flush() const { return bytes_ > kMuch; }
  bool full() const { return bytes_ >= kMost; }
  const std::deque<Entry>& entries() const { return entries_; }

 private:
  std::deque<Entry> entries_;  // in the order in which they were acknowledged
  uint64_t last_ = 0, bytes_ = 0;
};

}  // namespace vioctl::storage
