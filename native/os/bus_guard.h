// A shared mapping of a file loses its pages when somebody truncates the file: the next access raises SIGBUS. The guard
// puts zeros in their place and notes the loss, so that the access goes on and its caller can report the error.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "os/mapping.h"

namespace vioctl::os {

// Guards one mapping, for every thread that accesses it. There may be any number of guards. A SIGBUS anywhere else goes
// to the handler that was there before, and ends the process if there was none.
class BusGuard {
 public:
  BusGuard() = default;
  // Guards [at, at + size), which is mapped with `protection` in pages of `page` bytes (PageSizeOf). Throws SysError.
  BusGuard(void* at, size_t size, int protection, size_t page);
  BusGuard(BusGuard&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
  BusGuard& operator=(BusGuard&& other) noexcept {
    if (this != &other) {
      Reset();
      slot_ = std::exchange(other.slot_, nullptr);
    }
    return *this;
  }
  ~BusGuard() { Reset(); }

  // Ends the guard. No thread may access the mapping any more.
  void Reset() noexcept;

  // True once pages were lost.
  bool broken() const noexcept;
  // The same, and forgets it: true once for each loss.
  bool TakeBroken() noexcept;

  struct Slot;

 private:
  Slot* slot_ = nullptr;
};

// A system call fails with EFAULT where an access raises SIGBUS: accesses every page of some memory, so that a guard
// puts zeros in the place of what is gone. Then the call can be made again.
void Touch(const iovec* parts, int count) noexcept;

// A shared mapping of a file behind a guard.
class GuardedMapping {
 public:
  GuardedMapping() = default;
  // `offset` is a multiple of PageSizeOf(fd); size() is `size` rounded up to one. Throws SysError.
  GuardedMapping(int fd, size_t size, bool writable, off_t offset);
  GuardedMapping(GuardedMapping&&) noexcept = default;
  GuardedMapping& operator=(GuardedMapping&&) noexcept = default;

  uint8_t* get() const { return static_cast<uint8_t*>(map_.get()); }
  size_t size() const { return map_.size(); }
  bool broken() const noexcept { return guard_.broken(); }
  bool TakeBroken() noexcept { return guard_.TakeBroken(); }
  void Reset() noexcept {
    guard_.Reset();
    map_.Reset();
  }

 private:
  Mapping map_;
  BusGuard guard_;  // goes first
};

}  // namespace vioctl::os
