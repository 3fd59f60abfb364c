// Many files on threads of their own, each with its ring: read and summed, or made durable. JavaScript hands over names
// in blocks and takes results in batches, so that a file costs it no crossing and no callback.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "common/owned.h"
#include "uring/digest.h"

namespace vioctl::uring {

enum class BulkWork : uint32_t { kSum, kSync, kDataSync };

struct BulkOptions {
  BulkWork work = BulkWork::kSum;
  const Algorithm* algorithm = nullptr;  // of kSum
  uint32_t threads = 1;
  uint32_t depth = 256;  // files under way at once, over all threads
};

// How one file ended; src/uring/bulk/pool.ts reads it.
struct BulkResult {
  uint32_t number;
  int32_t error;  // 0 or -errno of what failed first
  uint64_t size;  // bytes read
  uint8_t digest[kMaxDigest];
};
static_assert(sizeof(BulkResult) == 80);

// Names that were handed over at once; lives until the last of its files has ended.
struct BulkBlock {
  std::vector<char> names;  // each with its NUL
  uint32_t first;           // number of the first
};

class BulkWorker;

class Bulk {
 public:
  // Opens the rings and starts the threads. Throws SysError: io_uring_setup(2), or EMFILE (file table).
  explicit Bulk(const BulkOptions& options);
  // Cancels what is under way and waits for the threads. A thread whose requests the kernel does not give back keeps
  // its memory for good.
  ~Bulk();
  Bulk(const Bulk&) = delete;
  Bulk& operator=(const Bulk&) = delete;

  // Takes names with their NULs; results carry first, first + 1, ...
  void Push(const char* names, size_t size, uint32_t first);
  // Moves results that are there; at most `limit`. Throws SysError where a ring has failed (io_uring_enter(2) denied).
  uint32_t Take(BulkResult* out, uint32_t limit);
  // Readable when there are results.
  int eventfd() const { return ready_fd_.get(); }

 private:
  friend class BulkWorker;
  struct Name {
    std::shared_ptr<const BulkBlock> block;
    const char* path;
    uint32_t number;
  };
  // Up to `limit` names from the queue.
  uint32_t Names(Name* out, uint32_t limit);
  bool HasNames();
  void Deliver(std::vector<BulkResult>& results);
  void Failed(int error);

  const BulkOptions options_;
  Fd ready_fd_;
  std::mutex queue_lock_, results_lock_;
  std::deque<std::shared_ptr<const BulkBlock>> queue_;  // the front one is begun
  size_t at_ = 0;                                       // next name in the front block
  uint32_t number_ = 0;                                 // its number
  std::vector<BulkResult> results_;
  size_t results_at_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> failure_{0};  // -errno of a ring that does not work
  std::vector<std::unique_ptr<BulkWorker>> workers_;
};

}  // namespace vioctl::uring
