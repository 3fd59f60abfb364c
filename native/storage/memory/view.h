// A file in memory (tmpfs) as its pages: reads need no system call, and no copy where the reader can do without.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "os/bus_guard.h"

namespace vioctl::storage {

class FileView {
 public:
  // Of the file and of what it may grow to. Throws SysError (mmap), std::bad_alloc.
  FileView(int fd, uint64_t size);

  // The file's bytes, if they are all there; nullptr where they have to be read. A hole is none: to look at it would
  // fill it. `size`: of the file. From any thread; the memory stays mapped as long as this object.
  const std::byte* At(uint64_t offset, uint64_t length, uint64_t size);
  // The range may become a hole, or was one and has another size: it is looked at again. Before and after that happens.
  void Forget(uint64_t offset, uint64_t length);
  // Pages were lost to a truncation: zeroes stand in their place for good, and At() gives nothing any more.
  bool broken() const { return map_.broken(); }

 private:
  static constexpr uint64_t kChunk = 64 << 10;  // bytes that one state tells of
  static constexpr uint8_t kThere = 255;
  static constexpr uint8_t kRest = 16;         // calls that a chunk with holes is not looked at again for
  static constexpr uint64_t kRoom = 64 << 20;  // bytes at least that the file may grow by

  bool Look(uint64_t chunk, uint64_t size);

  os::GuardedMapping map_;
  std::unique_ptr<std::atomic<uint8_t>[]> states_;  // kThere, or calls since the chunk was looked at
};

}  // namespace vioctl::storage
