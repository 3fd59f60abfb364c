// A file in memory, or in the page cache, as its pages: reads need no system call, and no copy where the reader can do
// without.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/bus_guard.h"

namespace vioctl::storage {

class FileView {
 public:
  // Of the file and of what it may grow to. `stays`: it is in memory as long as it has its size (tmpfs). Pages of other
  // files may go at any time: they are looked for again every kFreshMs. Throws SysError: mmap; ENOMEM if all views
  // together have too much.
  FileView(int fd, uint64_t size, bool stays);

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
  using State = std::atomic<uint32_t>;
  static constexpr uint64_t kChunk = 64 << 10;  // bytes that one state tells of
  // Calls for which a chunk is not looked at: again, if a part of it was not there; at all, if its pages may go.
  static constexpr uint32_t kRest = 16;
  static constexpr uint64_t kRoom = 64 << 20;  // bytes at least that the file may grow by

  // What this view takes of what all may have together.
  class Share {
   public:
    explicit Share(uint64_t bytes);
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    ~Share();

   private:
    const uint64_t bytes_;
  };

  uint32_t Now() const;
  static bool Fresh(uint32_t state, uint32_t now);
  bool Look(uint64_t chunk, uint64_t size, uint32_t now);
  void Clear(uint64_t from, uint64_t to) const;
  State& StateOf(uint64_t chunk) const { return static_cast<State*>(states_.get())[chunk]; }

  const bool stays_;
  const uint64_t mapped_;  // bytes
  const Share share_;
  os::GuardedMapping map_;
  Mapping kernel_;
  // States: when the chunk was there, or calls since it was looked at, up to kRest; 0: neither is known. Pages as they
  // are used.
  Mapping states_;
  std::atomic<uint64_t> forgotten_{0};  // calls of Forget()
  std::atomic<uint64_t> top_{0};        // number of the last chunk that was there, from 1 on; 0: none is known
};

}  // namespace vioctl::storage
