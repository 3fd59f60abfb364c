#include "vfio/memory.h"

#include <sys/mman.h>

#include <algorithm>

#include "common/error.h"
#include "os/memfd.h"

namespace vioctl::vfio {

Memory Memory::New(const std::string& name, uint64_t size, uint64_t huge, uint64_t align, uint64_t phase) {
  Memory memory;
  unsigned flags = 0;
  if (huge) flags |= MFD_HUGETLB | static_cast<unsigned>(__builtin_ctzll(huge)) << MAP_HUGE_SHIFT;
  memory.fd_ = os::NewMemfd("vioctl-" + name, size, flags);
  memory.map_ = Mapping::MapAligned(memory.fd_.get(), size, PROT_READ | PROT_WRITE, std::max(align, huge), phase);
  return memory;
}

Memory Memory::Of(Fd file, uint64_t size, bool writable, uint64_t align, uint64_t phase) {
  Memory memory;
  memory.fd_ = std::move(file);
  memory.writable_ = writable;
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  memory.map_ = Mapping::MapAligned(memory.fd_.get(), size, protection, align, phase);
  memory.guard_ = os::BusGuard(memory.map_.get(), size, protection, os::PageSizeOf(memory.fd_.get()));
  return memory;
}

void Memory::Populate(uint64_t offset, uint64_t size, bool write) const {
  if (const int error = os::Populate(get() + offset, size, write))
    throw SysError(error, "madvise", write ? "MADV_POPULATE_WRITE" : "MADV_POPULATE_READ");
}

}  // namespace vioctl::vfio
