// What both directions of a copy share: requests with buffers, many at a time, and how the first error ends it.
#pragma once
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "nvme/host/copy/copy.h"
#include "storage/request.h"

namespace vioctl::nvme::host {

using storage::Op;
using Where = CopyResult::Where;

constexpr int kStopMs = 100;         // between looks at whether to stop
constexpr int kPipeBytes = 1 << 20;  // that a pipe is asked to hold: the most that it may without privileges

inline bool AllZero(const uint8_t* data, size_t size) {
  return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

// One request with its buffer.
struct Slot : storage::Request {
  class Transfer* transfer = nullptr;
  std::unique_ptr<uint8_t, void (*)(void*)> buffer{nullptr, &::free};
  iovec part{};
  const uint8_t* input = nullptr;  // data of a write that lies there instead
  uint64_t at = 0, size = 0;       // bytes of the range, relative to its start, that it is for
  bool busy = false, over = false;
};

class Transfer {
 protected:
  Transfer(Host& host, const CopyOptions& options, CopyState& state);
  // Waits for what is out.
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Only the first error counts.
  void Fail(int err, Where where);
  // Whether to end: after an error, or because the user said so.
  bool Failed();
  // A slot that is free; nullptr if all are busy.
  Slot* Free();
  // The slot's buffer of a chunk. Throws bad_alloc.
  uint8_t* Buffer(Slot& slot);
  void Submit(Slot& slot, Op op, uint64_t offset, uint64_t length, bool data);
  // Something that has ended, nullptr if there is nothing.
  Slot* TakeOver();
  // Waits until something ends, or for a while. False if nothing is out.
  bool Await();
  // Waits for one request, while others may end. Returns its errno.
  int AwaitOne(Slot& slot);
  // Whether a request has ended that was not taken over.
  bool Over(const Slot& slot);

  Host& host_;
  const CopyOptions& options_;
  CopyState& state_;
  const uint64_t block_;
  uint64_t chunk_;
  std::deque<Slot> slots_;
  Slot flush_;  // of writes; here, because it may be out when the rest of a write is gone
  CopyResult result_;
  uint64_t next_ = 0;  // bytes of the range that slots were filled for

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Slot*> over_;
  size_t out_ = 0;
};

}  // namespace vioctl::nvme::host
