// Memory that is mapped for a device: a memfd, or a file of the user.
#pragma once
#include <cstdint>
#include <string>

#include "os/bus_guard.h"
#include "os/fd.h"

namespace vioctl::vfio {

class Memory {
 public:
  // New zeroed memory; huge: size of its hugepages, 0 for ordinary ones. The address is congruent to phase modulo
  // align, so that it can share hugepages with a device address. Throws SysError.
  static Memory New(const std::string& name, uint64_t size, uint64_t huge, uint64_t align, uint64_t phase);
  // The first `size` bytes of a file, shared. Takes the descriptor.
  static Memory Of(Fd file, uint64_t size, bool writable, uint64_t align, uint64_t phase);

  // Takes the pages of [offset, offset + size), for reading or for writing. Throws SysError: EFAULT for a hole, EINVAL
  // on kernels without MADV_POPULATE_* (before 5.14).
  void Populate(uint64_t offset, uint64_t size, bool write) const;

  uint8_t* get() const { return static_cast<uint8_t*>(map_.get()); }
  uint64_t size() const { return map_.size(); }
  int fd() const { return fd_.get(); }
  bool writable() const { return writable_; }
  // True once the file was truncated and an access found zeros in place of its bytes.
  bool broken() const { return guard_.broken(); }
  void Close() {
    guard_.Reset();
    map_.Reset();
    fd_.Reset();
  }

 private:
  Fd fd_;
  Mapping map_;
  os::BusGuard guard_;  // of a user's file, which others may truncate
  bool writable_ = true;
};

}  // namespace vioctl::vfio
