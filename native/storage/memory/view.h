// A file in memory (tmpfs) as its pages: reads need no system call, and no copy where the reader can do without.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/bus_guard.h"

namespace vioctl::storage {

class FileView {
 public:
  // Of the file and of what it may grow to. Throws SysError (mmap).
  FileView(int fd, uint64_t size);

  // Whether the file's bytes are all there; they have to be read if not. A hole is not there: to look at it would fill
  // it. `size`: of the file. From any thread; the memory stays mapped as long as this object.
  bool Has(uint64_t offset, uint64_t length, uint64_t size);
  // The file, for this process: zeroes stand in the place of pages that a truncation took. What was copied from here
  // counts if broken() says no behind it.
  const std::byte* guarded() const { return reinterpret_cast<const std::byte*>(map_.get()); }
  // The file, for a system call to read: one that meets pages which are gone fails with EFAULT. Nothing is ever put in
  // their place, and no thread may look at it.
  const std::byte* for_kernel() const { return static_cast<const std::byte*>(kernel_.get()); }
  // The range may become a hole, or was one and has another size: it is looked at again. Before and after that happens.
  void Forget(uint64_t offset, uint64_t length);
  // Pages were lost to a truncation: guarded() has zeroes for good, and Has() says no from now on.
  bool broken() const { return map_.broken(); }

 private:
  static constexpr uint64_t kChunk = 64 << 10;  // bytes that one state tells of
  static constexpr uint8_t kThere = 255;
  static constexpr uint8_t kRest = 16;         // calls that a chunk with holes is not looked at again for
  static constexpr uint64_t kRoom = 64 << 20;  // bytes at least that the file may grow by

  bool Look(uint64_t chunk, uint64_t size);
  void Clear(uint64_t from, uint64_t to) const;
  std::atomic<uint8_t>& State(uint64_t chunk) const { return static_cast<std::atomic<uint8_t>*>(states_.get())[chunk]; }

  os::GuardedMapping map_;
  Mapping kernel_;
  Mapping states_;  // std::atomic<uint8_t> each: kThere, or calls since the chunk was looked at; pages as they are used
  std::atomic<uint64_t> forgotten_{0};  // calls of Forget()
  std::atomic<uint64_t> top_{0};        // number of the last chunk that was there, from 1 on; 0: none is known
};

}  // namespace vioctl::storage
