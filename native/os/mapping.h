// Memory mappings and the size of the kernel's pages.
#pragma once
#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace vioctl {

// Owns a memory mapping; unmaps it once.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* at, size_t size) : at_(at), size_(size) {}
  Mapping(Mapping&& other) noexcept : at_(std::exchange(other.at_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Reset();
      at_ = std::exchange(other.at_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Reset(); }

  // mmap(2). Throws SysError.
  static Mapping Map(int fd, size_t size, int protection, int flags, off_t offset = 0);

  // Maps `size` bytes of a file from `offset` on, shared, at an address that is `phase` modulo `align`, a power of two:
  // where a device address or the offset is the same, it can share hugepages with it. Throws SysError.
  static Mapping MapAligned(int fd, size_t size, int protection, uint64_t align, uint64_t phase, off_t offset = 0);

  void* get() const { return at_; }
  size_t size() const { return size_; }
  bool valid() const { return at_ != nullptr; }
  // Gives the range to the caller, who unmaps it from now on.
  void* Release() {
    size_ = 0;
    return std::exchange(at_, nullptr);
  }
  void Reset() {
    if (at_) ::munmap(std::exchange(at_, nullptr), std::exchange(size_, 0));
  }

 private:
  void* at_ = nullptr;
  size_t size_ = 0;
};

namespace os {

// Bytes of a page of this kernel: 4 KiB on x86, 4, 16 or 64 KiB on arm64. A power of two. VIOCTL_TEST_PAGE_SIZE, read
// once, makes it larger (16384, 65536): all that follows is then done in such pages, which every smaller kernel allows.
size_t PageSize() noexcept;

// Bytes of memory of this machine.
uint64_t MemorySize() noexcept;

// Bytes of a page of a file's mapping: the hugepage of a file on hugetlbfs, PageSize() otherwise. Offset and size of
// a mapping are multiples of it. Throws SysError.
size_t PageSizeOf(int fd);

// Maps the pages of a range of memory at once, as accesses would one after the other. Returns 0 or an errno: EINVAL
// from kernels before 5.14.
int Populate(void* at, size_t size, bool write) noexcept;

constexpr uint64_t RoundDown(uint64_t value, uint64_t unit) { return value & ~(unit - 1); }
constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) { return RoundDown(value + unit - 1, unit); }

}  // namespace os

}  // namespace vioctl
