// The dirty log of a live migration (vhost-user specification, "Migration"): a bitmap in the front-end's memory, one
// bit for each page of 4096 bytes of guest-physical memory that the back-end has written.
#pragma once
#include <cstddef>
#include <cstdint>

#include "os/bus_guard.h"
#include "vhost_user/memory.h"

namespace vioctl::vhost_user {

class DirtyLog {
 public:
  static constexpr uint64_t kPage = 4096;  // VHOST_LOG_PAGE, whatever the pages of guest and host are

  // Maps `size` bytes from `offset` on; fd stays the caller's. Throws SysError.
  DirtyLog(int fd, uint64_t size, uint64_t offset);

  // Marks the pages of [address, address + length). Pages that the bitmap does not cover are left out. After the write,
  // so that a page that is sent meanwhile is sent again. Any thread.
  void Mark(uint64_t address, uint64_t length) const;
  // The same for host addresses into `memory`.
  void MarkHost(const GuestMemory& memory, const void* host, uint64_t length) const;

 private:
  os::GuardedMapping map_;
  uint8_t* bits_;
  uint64_t size_;
};

}  // namespace vioctl::vhost_user
