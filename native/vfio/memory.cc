#include "vfio/memory.h"

#include <sys/mman.h>

#include <algorithm>

#include "common/error.h"

namespace vioctl::vfio {
Memory Memory::New(const std::string& name, uint64_t size, uint64_t huge, uint64_t align, uint64_t phase) {
  Memory memory;
  unsigned flags = MFD_CLOEXEC;
  if (huge) flags |= MFD_HUGETLB | static_cast<unsigned>(__builtin_ctzll(huge)) << MAP_HUGE_SHIFT;
  memory.fd_ = Fd(Check(::memfd_create(("vioctl-" + name).c_str(), flags), "memfd_create", name.c_str()));
  Check(::ftruncate(memory.fd_.get(), static_cast<off_t>(size)), "ftruncate", name.c_str());
  memory.map_ = Mapping::MapAligned(memory.fd_.get(), size, PROT_READ | PROT_WRITE, std::max(align, huge), phase);
  return memory;
}

Memory Memory::Of(Fd file, uint64_t size, bool writable, uint64_t align, uint64_t phase) {
  Memory memory;
  memory.fd_ = std::move(file);
  memory.writable_ = writable;
  memory.map_ =
      Mapping::MapAligned(memory.fd_.get(), size, writable ? PROT_READ | PROT_WRITE : PROT_READ, align, phase);
  return memory;
}

void Memory::Populate(uint64_t offset, uint64_t size, bool write) const {
#ifndef MADV_POPULATE_READ
  constexpr int MADV_POPULATE_READ = 22, MADV_POPULATE_WRITE = 23;  // linux/mman.h of 5.14
#endif
  const int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
  while (::madvise(get() + offset, size, advice) != 0) {
    if (errno != EINTR && errno != EAGAIN)
      throw SysError(errno, "madvise", write ? "MADV_POPULATE_WRITE" : "MADV_POPULATE_READ");
  }
}

}  // namespace vioctl::vfio
