// Small files read whole on a ring: open → read → read until 0 → close, four requests for the kernel and one completion
// for JavaScript. A file that fills its buffer is handed over open.
#pragma once
#include <cstdint>
#include <vector>

#include "uring/ring.h"
#include "uring/shared.h"

namespace vioctl::uring {

// kOpReadWhole: an entry in the array shared with JavaScript, which the kernel never sees. Fields: addr = path (NUL-
// terminated), off = buffer, len = its size, open_flags, file_index = slot + 1, user_data. The completion's res is the
// bytes read or -errno; kStillOpen in its flags says that the buffer is full, the file has not ended and its slot stays
// open.
class FileReads {
 public:
  explicit FileReads(Ring& ring) : ring_(ring) {}

  // Entries that starting a file takes: its open and, linked to it, its first read. A ring of one entry reads later.
  uint32_t start_entries() const { return ring_.sq_entries() > 1 ? 2 : 1; }

  // Begins a file; the ring has room for start_entries(). The path and the buffer live until its completion.
  void Start(const io_uring_sqe& entry);

  // Whether a completion belongs to a file here; then `*answer` may be filled and true returned for JavaScript's
  // completion.
  static bool Owns(const io_uring_cqe& cqe) { return (cqe.user_data >> 62) == 1; }
  bool Advance(const io_uring_cqe& cqe, io_uring_cqe* answer);

  // Queues what waits for an entry of the ring. Returns false if some still do.
  bool Continue();
  bool waiting() const { return !todo_.empty(); }

 private:
  enum Step : uint32_t { kOpen, kRead, kClose };
  struct File {
    uint64_t user_data;
    uint8_t* buffer;
    uint32_t slot, size, done;
    int32_t error;
    bool opened;
    Step next;
  };

  io_uring_sqe* Entry(uint32_t index, Step step);
  void QueueRead(uint32_t index, io_uring_sqe* sqe);
  void Next(uint32_t index, Step step);

  Ring& ring_;
  std::vector<File> files_;  // grows to the number of files under way, then stays
  std::vector<uint32_t> free_, todo_;
};

}  // namespace vioctl::uring
