// Memory of a peer: mapped behind a guard, because a peer can cut its file short while it is mapped.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "os/bus_guard.h"

namespace vioctl::vhost_user {

// One region as SET_MEM_TABLE and ADD_MEM_REG announce it.
struct Region {
  uint64_t gpa, size, uva, offset;
};

// Guest memory of one memory table. Immutable: a changed table is a new object; rings keep theirs alive.
class GuestMemory {
 public:
  // Maps all regions; fds stay the caller's. Throws SysError.
  GuestMemory(const std::vector<Region>& regions, const std::vector<int>& fds);

  // Host address of [address, address + size) in guest-physical or front-end virtual addresses, nullptr unless it
  // lies in one region. `Run` gives as much as is contiguous from there (0 if nothing).
  uint8_t* Physical(uint64_t address, uint64_t size) const;
  uint8_t* Virtual(uint64_t address, uint64_t size) const;
  uint8_t* Run(uint64_t address, uint64_t* size) const;
  // Guest-physical address of a host address that one of the above has returned. False for any other.
  bool GuestAddress(const void* host, uint64_t* address) const;
  bool broken() const;

 private:
  struct Part {
    Region region;
    os::GuardedMapping map;
    uint8_t* base;  // host address of the region's first byte
  };
  std::vector<Part> parts_;
};

}  // namespace vioctl::vhost_user
