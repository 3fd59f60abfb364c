// Many files on threads of their own, each with its ring: read and summed, or made durable (that without a ring as
// well). JavaScript hands over names in blocks and takes results in batches, so that a file costs it no crossing and no
// callback.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "os/fd.h"
#include "uring/digest.h"
#include "uring/shared.h"

namespace vioctl::uring {

struct BulkOptions {
  BulkWork work = BulkWork::kSum;
  const Algorithm* algorithm = nullptr;  // of kSum
  bool plain = false;                    // each thread works with system calls, without a ring
  uint32_t threads = 1;
  uint32_t depth = 256;  // files under way at once, over all threads
};

// How one file ended; src/uring/bulk/engine/pool.ts reads it.
struct BulkResult {
  uint32_t number;
  int32_t error;  // 0, -errno of what failed first, kTruncated or kElsewhere
  uint64_t size;  // bytes read
  uint8_t digest[kMaxDigest];
};
static_assert(sizeof(BulkResult) == kBulkResultSize && offsetof(BulkResult, digest) == kBulkDigestAt);

// Names that were handed over at once; lives until the last of its files has ended.
struct BulkBlock {
  std::vector<char> names;  // each with its NUL
  uint32_t first;           // number of the first
};

// Calls of io_uring_enter(2) of all threads, those that found completions held back, and bytes read so far.
struct BulkStats {
  uint64_t enters = 0, overflows = 0, bytes = 0;
};

// A thread of a Bulk.
class BulkThread {
 public:
  virtual ~BulkThread() = default;
  // Starts it. Throws SysError; then there is no thread.
  virtual void Start() = 0;
  // There are names, or (`always`) the end.
  virtual void Wake(bool always) = 0;
  // Waits for its end. Returns false if the kernel still has requests: then nothing here may be freed.
  virtual bool Join() = 0;
  // Of its ring, and bytes read; written there, read by others.
  std::atomic<uint64_t> enters{0}, overflows{0}, bytes{0};
};

class Bulk {
 public:
  // Opens the rings and starts the threads; goes on with fewer where a limit refuses some. Throws SysError where there
  // is not even one: io_uring_setup(2), EMFILE (file table), EAGAIN (threads).
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
  BulkStats Stats() const;
  // Readable when there are results.
  int eventfd() const { return ready_fd_.get(); }

 private:
  friend class RingThread;
  friend class PlainThread;
  struct Name {
    std::shared_ptr<const BulkBlock> block;
    const char* path = nullptr;
    uint32_t number = 0;
  };
  // Up to `limit` names from the queue.
  uint32_t Names(Name* out, uint32_t limit);
  // Waits for a name. Returns false at the end.
  bool Await(Name& out);
  uint32_t Dequeue(Name* out, uint32_t limit);  // under queue_lock_
  bool HasNames();
  void Deliver(std::vector<BulkResult>& results);
  void Failed(int error);
  void Stop();

  const BulkOptions options_;
  Fd ready_fd_;
  std::mutex queue_lock_, results_lock_;
  std::condition_variable more_;                        // names, or the end: plain threads wait for it
  std::deque<std::shared_ptr<const BulkBlock>> queue_;  // the front one is begun
  size_t at_ = 0;                                       // next name in the front block
  uint32_t number_ = 0;                                 // its number
  std::vector<BulkResult> results_;
  size_t results_at_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> failure_{0};  // -errno of a ring that does not work
  std::vector<std::unique_ptr<BulkThread>> threads_;
};

}  // namespace vioctl::uring
