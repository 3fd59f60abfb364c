#include "vfio/memory.h"

#include <sys/mman.h>

#include <algorithm>

#include "common/error.h"

namespace vioctl::vfio {
namespace {

constexpr uint64_t kPage = 4096;

// Maps fd at an address that is congruent to phase modulo align: takes a larger hole, maps in it, gives the ends back.
Mapping MapAligned(int fd, uint64_t size, int protection, uint64_t align, uint64_t phase) {
  align = std::max(align, kPage);
  if (size + align < size) throw SysError(ENOMEM, "mmap");
  void* hole = ::mmap(nullptr, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (hole == MAP_FAILED) throw SysError(errno, "mmap");
  const uint64_t start = reinterpret_cast<uint64_t>(hole), end = start + size + align;
  const uint64_t at = start + ((phase - start) & (align - 1));
  void* mapped = ::mmap(reinterpret_cast<void*>(at), size, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    const int err = errno;
    ::munmap(hole, size + align);
    throw SysError(err, "mmap");
  }
  if (at > start) ::munmap(hole, at - start);
  if (at + size < end) ::munmap(reinterpret_cast<void*>(at + size), end - at - size);
  return Mapping(mapped, size);
}

}  // namespace

Memory Memory::New(const std::string& name, uint64_t size, uint64_t huge, uint64_t align, uint64_t phase) {
  Memory memory;
  unsigned flags = MFD_CLOEXEC;
  if (huge) flags |= MFD_HUGETLB | static_cast<unsigned>(__builtin_ctzll(huge)) << MAP_HUGE_SHIFT;
  memory.fd_ = Fd(Check(::memfd_create(("vioctl-" + name).c_str(), flags), "memfd_create", name.c_str()));
  Check(::ftruncate(memory.fd_.get(), static_cast<off_t>(size)), "ftruncate", name.c_str());
  memory.map_ = MapAligned(memory.fd_.get(), size, PROT_READ | PROT_WRITE, std::max(align, huge), phase);
  return memory;
}

Memory Memory::Of(Fd file, uint64_t size, bool writable, uint64_t align, uint64_t phase) {
  Memory memory;
  memory.fd_ = std::move(file);
  memory.writable_ = writable;
  memory.map_ = MapAligned(memory.fd_.get(), size, writable ? PROT_READ | PROT_WRITE : PROT_READ, align, phase);
  return memory;
}

}  // namespace vioctl::vfio
