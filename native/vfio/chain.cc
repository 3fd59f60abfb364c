#include "vfio/chain.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"

namespace vioctl::vfio {

std::vector<Capability> Chain(const uint8_t* buffer, uint32_t size, uint32_t fixed, uint32_t first) {
  constexpr uint32_t kHeader = 8;  // u16 id, u16 version, u32 next
  constexpr size_t kMost = 256;    // real chains have up to four
  std::vector<Capability> chain;
  for (uint32_t at = first; at != 0;) {
    if (at < fixed || at % 4 || size < kHeader || at > size - kHeader)
      throw SysError(EPROTO, "capabilities", "offset " + std::to_string(at));
    for (const Capability& seen : chain)
      if (seen.offset == at) throw SysError(EPROTO, "capabilities", "the chain comes back to " + std::to_string(at));
    if (chain.size() == kMost) throw SysError(EPROTO, "capabilities", "more than 256");
    Capability cap{0, 0, at, 0};
    memcpy(&cap.id, buffer + at, 2);
    memcpy(&cap.version, buffer + at + 2, 2);
    memcpy(&at, buffer + at + 4, 4);
    chain.push_back(cap);
  }
  for (Capability& cap : chain) {
    uint32_t end = size;
    for (const Capability& other : chain)
      if (other.offset > cap.offset) end = std::min(end, other.offset);
    cap.size = end - cap.offset;
  }
  return chain;
}

}  // namespace vioctl::vfio
