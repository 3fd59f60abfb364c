// Writes that a controller with a volatile write cache has acknowledged, and that no flush has made durable yet. If the
// target is lost and comes back, its cache may have been lost with it, and nothing tells: so they are written again, in
// the order of their completion, before anything else. What they cover stays bounded: the host flushes by itself.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <deque>
#include <memory>

namespace vioctl::nvme::host {

class Journal {
 public:
  struct Entry {
    uint64_t sequence, offset, length;
    std::unique_ptr<uint8_t[]> data;  // none: zeroes
  };

  // Beyond the first, a flush is due; beyond the second, no further write is started.
  static constexpr uint64_t kFlushBytes = 32 << 20, kMaxBytes = 64 << 20;
  static constexpr size_t kFlushEntries = 32768, kMaxEntries = 65536;

  // A write of `length` bytes of some parts, from byte `skip` on, has ended; parts nullptr: zeroes.
  void Add(uint64_t offset, uint64_t length, const iovec* parts, int count, uint64_t skip);
  // The number of the last entry: what a flush that begins now covers.
  uint64_t last() const { return last_; }
  // A flush that covers entries up to this one has ended well.
  void Flushed(uint64_t sequence);

  bool empty() const { return entries_.empty(); }
  bool wants_flush() const { return bytes_ > kFlushBytes || entries_.size() > kFlushEntries; }
  bool full() const { return bytes_ > kMaxBytes || entries_.size() > kMaxEntries; }
  const std::deque<Entry>& entries() const { return entries_; }

 private:
  std::deque<Entry> entries_;
  uint64_t last_ = 0, bytes_ = 0;
};

}  // namespace vioctl::nvme::host
