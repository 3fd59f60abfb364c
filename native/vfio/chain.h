// The capability chains behind VFIO's info structures (struct vfio_info_cap_header): offsets within one buffer.
#pragma once
#include <cstdint>
#include <vector>

namespace vioctl::vfio {

struct Capability {
  uint16_t id, version;
  uint32_t offset;  // of its header in the buffer
  uint32_t size;    // bytes up to the next capability in memory, or to the end of the buffer
};

// Walks the chain that starts at offset first (0: there is none). Every header must lie whole in the buffer, behind
// the fixed part, and come once, and there are at most 256. Throws SysError(EPROTO) for a chain that breaks this.
std::vector<Capability> Chain(const uint8_t* buffer, uint32_t size, uint32_t fixed, uint32_t first);

}  // namespace vioctl::vfio
