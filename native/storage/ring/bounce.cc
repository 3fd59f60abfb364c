#include "storage/ring/bounce.h"

#include <sys/uio.h>

#include <cstdlib>
#include <new>

#include "storage/direct.h"
#include "uring/refusal.h"

namespace vioctl::storage {

BouncePool::BouncePool(uring::Ring& ring)
    : memory_(static_cast<std::byte*>(::aligned_alloc(kBufferAlignment, kBuffers * kBufferSize)), &::free) {
  if (!memory_) throw std::bad_alloc();
  std::vector<iovec> buffers;
  for (int i = 0; i < static_cast<int>(kBuffers); i++) {
    buffers.push_back({At(i), kBufferSize});
    free_.push_back(i);
  }
  const int err = ring.RegisterBuffers(buffers);
  registered_ = err == 0;
  if (err < 0) uring::NoteBufferRefusal(-err);
}

int BouncePool::Take() {
  if (free_.empty()) return -1;
  const int index = free_.back();
  free_.pop_back();
  return index;
}

void BouncePool::Prepare(io_uring_sqe* sqe, bool write, int file, int index, uint32_t length, uint64_t offset,
                         uint64_t user_data) const {
  const uint8_t opcode =
      registered_ ? (write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED) : (write ? IORING_OP_WRITE : IORING_OP_READ);
  uring::Prepare(sqe, opcode, file, At(index), length, offset, user_data, IOSQE_FIXED_FILE);
  if (registered_) sqe->buf_index = static_cast<uint16_t>(index);
}

}  // namespace vioctl::storage
