#include "storage/durability.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <map>
#include <tuple>

namespace vioctl::storage {
namespace {

// Device, inode, whether it is a block device: symbolic links, hard links and other nodes of a device are one file.
using Key = std::tuple<dev_t, ino_t, bool>;
constexpr size_t kFewFiles = 64;  // entries of files that are closed may stay among so many

// A thread that waits for its turn.
class Blocked final : public SyncWaiter {
 public:
  void Lead() override { Wake(true, 0); }
  void Synced(int err) override { Wake(false, err); }
  // True if this thread has to do the sync; else err() is its result.
  bool Wait() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return woken_; });
    return leads_;
  }
  int err() const { return err_; }

 private:
  void Wake(bool leads, int err) {
    // Under the lock: the waiter is gone as soon as it sees woken_.
    std::lock_guard lock(mutex_);
    woken_ = true;
    leads_ = leads;
    err_ = err;
    wake_.notify_one();
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false, leads_ = false;
  int err_ = 0;
};

}  // namespace

std::shared_ptr<Durability> Durability::Of(const struct stat& file) {
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<Durability>> known;
  static size_t sweep_at = kFewFiles;
  const bool device = S_ISBLK(file.st_mode);
  const Key key = device ? Key{file.st_rdev, 0, true} : Key{file.st_dev, file.st_ino, false};
  std::lock_guard lock(mutex);
  if (known.size() >= sweep_at) {  // not each time: there may be thousands
    std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
    sweep_at = std::max(kFewFiles, 2 * known.size());
  }
  auto& entry = known[key];
  auto found = entry.lock();
  if (!found) entry = found = std::make_shared<Durability>();
  return found;
}

void Durability::Fail(int err) {
  int none = 0;
  if (err != 0) error_.compare_exchange_strong(none, err, std::memory_order_acq_rel);
}

void Durability::Clear() {
  std::lock_guard lock(mutex_);
  error_.store(0, std::memory_order_release);
}

int Durability::Join(SyncWaiter& waiter) {
  std::lock_guard lock(mutex_);
  if (const int err = error()) return err;
  if (!running_) {
    running_ = true;
    return kLeads;
  }
  arriving_.push_back(&waiter);
  return kWaiting;
}

int Durability::Finish(int err, bool lost) {
  std::vector<SyncWaiter*> done;
  SyncWaiter* next = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (lost) Fail(err);
    const int latched = error();
    if (latched != 0) err = latched;
    done.swap(round_);
    if (latched != 0) {
      done.insert(done.end(), arriving_.begin(), arriving_.end());
      arriving_.clear();
    } else if (!arriving_.empty()) {
      next = arriving_.front();
      round_.assign(arriving_.begin() + 1, arriving_.end());
      arriving_.clear();
    }
    running_ = next != nullptr;
  }
  if (next) next->Lead();
  for (SyncWaiter* waiter : done) waiter->Synced(err);
  return err;
}

int Durability::Sync(const std::function<int()>& sync, const std::function<bool(int)>& lost) {
  Blocked self;
  int joined = Join(self);
  if (joined == kWaiting) {
    if (!self.Wait()) return self.err();
    joined = kLeads;
  }
  if (joined != kLeads) return joined;
  const int err = sync();
  return Finish(err, lost(err));
}

bool MayLoseData(int err) {
  switch (err) {
    case 0:
    case EOPNOTSUPP:
    case ENOSYS:
    case ENOTTY:
    case EINVAL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EPERM:
    case EACCES:
    case EROFS:
    case EBADF:
    case ETXTBSY:
    case EINTR:
    case EAGAIN:
    case EBUSY:  // a range of a device that another program has claimed
    case ENOMEM:
      return false;
    default:
      return true;
  }
}

}  // namespace vioctl::storage
