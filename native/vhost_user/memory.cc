#include "vhost_user/memory.h"

#include <algorithm>

#include "common/error.h"

namespace vioctl::vhost_user {

GuestMemory::GuestMemory(const std::vector<Region>& regions, const std::vector<int>& fds) {
  if (regions.size() != fds.size()) throw SysError(EINVAL, "mmap", "one descriptor per region");
  parts_.reserve(regions.size());
  for (size_t i = 0; i < regions.size(); i++) {
    const Region& region = regions[i];
    const uint64_t unit = os::PageSizeOf(fds[i]);  // what mmap wants offset and size in
    const uint64_t start = os::RoundDown(region.offset, unit);
    const uint64_t skip = region.offset - start;
    if (region.size == 0 || region.size > (uint64_t{1} << 46) || region.offset > (uint64_t{1} << 62))
      throw SysError(EINVAL, "mmap", "memory region");
    const uint64_t size = os::RoundUp(region.size + skip, unit);
    os::GuardedMapping map(fds[i], size, true, static_cast<off_t>(start));
    uint8_t* base = map.get() + skip;
    parts_.push_back({region, std::move(map), base});
  }
}

uint8_t* GuestMemory::Physical(uint64_t address, uint64_t size) const {
  for (const Part& part : parts_) {
    const uint64_t offset = address - part.region.gpa;
    if (address >= part.region.gpa && offset < part.region.size && size <= part.region.size - offset)
      return part.base + offset;
  }
  return nullptr;
}

uint8_t* GuestMemory::Virtual(uint64_t address, uint64_t size) const {
  for (const Part& part : parts_) {
    const uint64_t offset = address - part.region.uva;
    if (address >= part.region.uva && offset < part.region.size && size <= part.region.size - offset)
      return part.base + offset;
  }
  return nullptr;
}

uint8_t* GuestMemory::Run(uint64_t address, uint64_t* size) const {
  for (const Part& part : parts_) {
    const uint64_t offset = address - part.region.gpa;
    if (address < part.region.gpa || offset >= part.region.size) continue;
    *size = std::min(*size, part.region.size - offset);
    return part.base + offset;
  }
  *size = 0;
  return nullptr;
}

bool GuestMemory::GuestAddress(const void* host, uint64_t* address) const {
  const auto* at = static_cast<const uint8_t*>(host);
  for (const Part& part : parts_) {
    if (at < part.base || at >= part.base + part.region.size) continue;
    *address = part.region.gpa + static_cast<uint64_t>(at - part.base);
    return true;
  }
  return false;
}

bool GuestMemory::broken() const {
  for (const Part& part : parts_)
    if (part.map.broken()) return true;
  return false;
}

}  // namespace vioctl::vhost_user
