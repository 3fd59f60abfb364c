// Aligned buffers for I/O past the page cache (O_DIRECT) through a ring, registered with it where the kernel permits
// that. Of the ring's thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "uring/ring.h"

namespace vioctl::storage {

class BouncePool {
 public:
  static constexpr uint32_t kBuffers = 8;
  static constexpr size_t kBufferSize = 256 << 10;  // larger requests are done by the executor

  // Goes with the ring: no request may be in it any more. Throws std::bad_alloc.
  explicit BouncePool(uring::Ring& ring);

  // A free buffer, or -1.
  int Take();
  void Give(int index) { free_.push_back(index); }
  std::byte* At(int index) const { return memory_.get() + static_cast<size_t>(index) * kBufferSize; }

  // Fills in a read or a write of a buffer's first `length` bytes, on a registered file.
  void Prepare(io_uring_sqe* sqe, bool write, int file, int index, uint32_t length, uint64_t offset,
               uint64_t user_data) const;

 private:
  std::unique_ptr<std::byte, void (*)(void*)> memory_;
  std::vector<int> free_;
  bool registered_ = false;  // not where the limit of locked memory forbids it
};

}  // namespace vioctl::storage
