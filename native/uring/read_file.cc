#include "uring/read_file.h"

#include <fcntl.h>

#include "common/assert.h"

namespace vioctl::uring {
namespace {

// An index has 28 bits of user_data.
constexpr uint32_t kMaxFiles = 1U << 28;

}  // namespace

// user_data of our requests: bit 62, the file's index, and the step in the lowest two bits.
io_uring_sqe* FileReads::Entry(uint32_t index, Step step) {
  io_uring_sqe* sqe = ring_.Next();
  if (sqe) sqe->user_data = (uint64_t{1} << 62) | (uint64_t{index} << 2) | step;
  return sqe;
}

void FileReads::QueueRead(uint32_t index, io_uring_sqe* sqe) {
  const File& file = files_[index];
  sqe->opcode = IORING_OP_READ;
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->fd = static_cast<int32_t>(file.slot);
  sqe->addr = reinterpret_cast<uintptr_t>(file.buffer + file.done);
  sqe->len = file.size - file.done;
  sqe->off = file.done;
}

void FileReads::Start(const io_uring_sqe& entry) {
  uint32_t index;
  if (free_.empty()) {
    index = static_cast<uint32_t>(files_.size());
    files_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  VIOCTL_ASSERT(index < kMaxFiles);
  File& file = files_[index];
  file = {entry.user_data, reinterpret_cast<uint8_t*>(entry.off), entry.file_index - 1, entry.len, 0, 0, false, kRead};
  io_uring_sqe* open = Entry(index, kOpen);
  VIOCTL_ASSERT(open);
  open->opcode = IORING_OP_OPENAT;
  open->flags = start_entries() > 1 ? IOSQE_IO_LINK : 0;
  open->fd = AT_FDCWD;
  open->addr = entry.addr;
  open->open_flags = entry.open_flags;
  open->file_index = entry.file_index;
  if (start_entries() > 1) QueueRead(index, Entry(index, kRead));
}

void FileReads::Next(uint32_t index, Step step) {
  files_[index].next = step;
  todo_.push_back(index);
}

bool FileReads::Continue() {
  while (!todo_.empty()) {
    const uint32_t index = todo_.back();
    io_uring_sqe* sqe = Entry(index, files_[index].next);
    if (!sqe) return false;
    todo_.pop_back();
    if (files_[index].next == kRead) {
      QueueRead(index, sqe);
    } else {
      sqe->opcode = IORING_OP_CLOSE;
      sqe->file_index = files_[index].slot + 1;
    }
  }
  return true;
}

bool FileReads::Advance(const io_uring_cqe& cqe, io_uring_cqe* answer) {
  const auto index = static_cast<uint32_t>(cqe.user_data >> 2) & (kMaxFiles - 1);
  VIOCTL_ASSERT(index < files_.size());
  File& file = files_[index];
  uint32_t flags = 0;
  switch (static_cast<Step>(cqe.user_data & 3)) {
    case kOpen:
      file.opened = cqe.res >= 0;
      if (!file.opened) file.error = cqe.res;
      if (start_entries() > 1) return false;
      if (!file.opened) break;
      Next(index, kRead);
      return false;
    case kRead:
      if (cqe.res > 0) {
        file.done += static_cast<uint32_t>(cqe.res);
        if (file.done < file.size) {
          Next(index, kRead);  // only a read of 0 bytes is the end: this one may be short for any reason
          return false;
        }
        flags = kStillOpen;
        break;
      }
      if (cqe.res < 0 && file.error == 0) file.error = cqe.res;
      if (file.opened) {
        Next(index, kClose);
        return false;
      }
      break;
    case kClose:
      break;
  }
  answer->user_data = file.user_data;
  answer->res = file.error ? file.error : static_cast<int32_t>(file.done);
  answer->flags = flags;
  free_.push_back(index);
  return true;
}

}  // namespace vioctl::uring
