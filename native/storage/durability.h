// Whether what was written to a file is on stable storage. The state of one file in this process: all stores over it
// share it, whatever name they opened it by.
//
// Linux reports a failed write-back once to each open file description, marks the pages clean and forgets it: the next
// fsync succeeds although data is lost (fsync(2); Documentation/filesystems/vfs.rst, "Handling errors during
// writeback"). So the first failure is latched here, no failed sync is repeated, and every later one fails until the
// file is closed by all its stores and opened again, or reopened by one of them.
//
// Syncs are done one at a time. Of two that run at once, the kernel tells the loss to one alone, and the other would be
// answered with success before the latch is set. What waits meanwhile shares the next sync.
#pragma once
#include <sys/stat.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace vioctl::storage {

// Somebody who wants everything written so far to be durable. Its methods are called from any thread, without locks
// held, once for each Join() that returned kWaiting.
class SyncWaiter {
 public:
  virtual ~SyncWaiter() = default;
  // Do one sync now, and tell Durability::Finish() how it ended. Synced() does not follow.
  virtual void Lead() = 0;
  // Done: 0 or an errno.
  virtual void Synced(int err) = 0;
};

class Durability {
 public:
  static constexpr int kWaiting = 0, kLeads = -1;

  // The one of a file.
  static std::shared_ptr<Durability> Of(const struct stat& file);

  // Errno of the first failure; 0 if there was none.
  int error() const { return error_.load(std::memory_order_acquire); }

  // Latches a failure that may have lost data.
  void Fail(int err);
  // The file was opened anew: what was lost is lost, and what is written from now on can be durable again.
  void Clear();

  // Asks for a sync that begins after this call. kLeads: the caller does it and calls Finish(). kWaiting: the waiter is
  // told. Otherwise the latched errno: the waiter is not called.
  int Join(SyncWaiter& waiter);

  // The leader's sync has ended with 0 or an errno, which is latched if it may have lost data. Tells all who shared it
  // and hands the next sync to one of those who came meanwhile. Returns the result for the leader itself.
  int Finish(int err, bool lost = true);

  // Joins and waits; `sync` returns 0 or an errno and is called at most once, `lost` says of an errno whether to latch
  // it.
  int Sync(const std::function<int()>& sync, const std::function<bool(int)>& lost);

 private:
  std::atomic<int> error_{0};
  std::mutex mutex_;
  bool running_ = false;
  std::vector<SyncWaiter*> round_;     // share the sync that runs
  std::vector<SyncWaiter*> arriving_;  // came after it had begun
};

// Whether a failed fallocate or discard may mean that written data was lost: it writes pages back on its way. Errors
// that only say that the operation is not possible here do not.
bool MayLoseData(int err);

}  // namespace vioctl::storage
