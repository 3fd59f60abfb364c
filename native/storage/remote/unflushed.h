// What a server has acknowledged and not yet flushed: kept here, so that it can be written again to a server that has
// died meanwhile and may have lost it. NFS clients do the same with writes until COMMIT (RFC 1813, 3.3.21).
// Of one thread.
#pragma once
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
  static constexpr uint64_t kEntry = 256;       // what an entry counts beside its data

  struct Entry {
    Op op;
    bool deallocate;
    uint64_t offset, length, number;
    std::vector<std::byte> data;  // of a write
  };

  // An acknowledged change; `data` is that of a write. Throws std::bad_alloc.
  void Add(Op op, bool deallocate, uint64_t offset, uint64_t length, const std::byte* data);
  // All that was added so far, for Flushed() when a flush that begins now has succeeded.
  uint64_t Mark() const { return last_; }
  void Flushed(uint64_t mark);
  void Clear() { Flushed(last_); }

  bool empty() const { return entries_.empty(); }
  uint64_t bytes() const { return bytes_; }
  const std::deque<Entry>& entries() const { return entries_; }

 private:
  std::deque<Entry> entries_;  // in the order in which they were acknowledged
  uint64_t last_ = 0, bytes_ = 0;
};

}  // namespace vioctl::storage
