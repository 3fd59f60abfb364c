#include "storage/throttle.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <system_error>
#include <thread>

#include "common/assert.h"
#include "common/error.h"
#include "os/clock.h"

namespace vioctl::storage {
namespace {

constexpr uint64_t kRoom = os::kSecond / 10;  // of a bucket without a burst
// Requests are released at most this often: many together cost one wake-up. No rate is lost, the bucket leaks
// meanwhile.
constexpr uint64_t kSlice = 500'000;
constexpr uint64_t kFar = uint64_t{1} << 62;  // ns: no bucket is later empty, so that sums do not overflow

// a * b / c, rounded up and bounded.
uint64_t Scale(uint64_t a, uint64_t b, uint64_t c) {
  const unsigned __int128 value = (static_cast<unsigned __int128>(a) * b + c - 1) / c;
  return value > kFar ? kFar : static_cast<uint64_t>(value);
}

}  // namespace

void Bucket::Level::Take(uint64_t now, uint64_t units) {
  if (rate == 0) return;
  empty_at = std::min(kFar, std::max(empty_at, now) + Scale(units, os::kSecond, rate));
}

void Bucket::Set(const Rate& rate) {
  average_ = {};
  burst_ = {};
  average_.rate = rate.average;
  average_.room = kRoom;
  if (rate.average == 0 || rate.burst == 0) return;
  average_.room = Scale(rate.burst, uint64_t{rate.seconds} * os::kSecond, rate.average);
  if (rate.seconds > 1) {
    burst_.rate = rate.burst;
    burst_.room = kRoom;
  }
}

uint64_t Bucket::Wait(uint64_t now) const { return std::max(average_.Wait(now), burst_.Wait(now)); }

void Bucket::Take(uint64_t now, uint64_t units) {
  average_.Take(now, units);
  burst_.Take(now, units);
}

// The thread that admits what had to wait, for all throttles of the process. It is made with the first limit and stays.
class Pacer {
 public:
  static Pacer& Get() {
    // Never destroyed: the thread may outlive whatever runs at the end of the process.
    static Pacer* const pacer = new Pacer;
    return *pacer;
  }

  void Start() {
    std::lock_guard lock(mutex_);
    if (started_) return;
    try {
      std::thread([this] { Run(); }).detach();
    } catch (const std::system_error& error) {
      throw SysError(error.code().value(), "clone");
    }
    started_ = true;
  }

  // Calls Release() of a throttle at a time.
  void At(uint64_t when, std::shared_ptr<Throttle> throttle) {
    std::lock_guard lock(mutex_);
    const bool first = due_.empty() || when < due_.begin()->first;
    due_.emplace(when, std::move(throttle));
    if (first) wake_.notify_one();
  }

 private:
  void Run() {
    ::pthread_setname_np(::pthread_self(), "vioctl-limit");
    std::unique_lock lock(mutex_);
    for (;;) {
      if (due_.empty()) {
        wake_.wait(lock);
        continue;
      }
      const uint64_t now = os::NowNs(), when = due_.begin()->first;
      if (when > now) {
        wake_.wait_for(lock, std::chrono::nanoseconds(std::min(when - now, os::kSecond)));
        continue;
      }
      const std::shared_ptr<Throttle> throttle = std::move(due_.begin()->second);
      due_.erase(due_.begin());
      lock.unlock();
      throttle->Release(now);
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::multimap<uint64_t, std::shared_ptr<Throttle>> due_;
  bool started_ = false;
};

uint64_t Throttle::WaitLocked(uint64_t now) const { return std::max(operations_.Wait(now), bytes_.Wait(now)); }

bool Throttle::Enter(Waiter& waiter, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  VIOCTL_ASSERT(!line_.Holds(waiter));
  if (!active_.load(std::memory_order_relaxed)) return true;
  const uint64_t now = os::NowNs(), wait = line_.first() ? 1 : WaitLocked(now);
  if (wait == 0) {
    operations_.Take(now, 1);
    bytes_.Take(now, bytes);
    return true;
  }
  waiter.bytes_ = bytes;
  line_.Push(waiter);
  waiting_.fetch_add(1, std::memory_order_relaxed);
  delayed_.fetch_add(1, std::memory_order_relaxed);
  if (line_.first() == &waiter) Schedule(now + std::max(wait, kSlice));
  return false;
}

// At most one call is due, and more only after new limits: those who come and go must not fill the pacer.
void Throttle::Schedule(uint64_t when) {
  if (scheduled_ != 0 && scheduled_ <= when) return;
  scheduled_ = when;
  Pacer::Get().At(when, shared_from_this());
}

void Throttle::Unlink(Waiter& waiter) {
  line_.Remove(waiter);
  waiter.next_ = nullptr;
  waiting_.fetch_sub(1, std::memory_order_relaxed);
}

bool Throttle::Leave(Waiter& waiter) {
  std::lock_guard lock(mutex_);
  if (!line_.Holds(waiter)) return false;
  Unlink(waiter);
  return true;
}

void Throttle::Charge(uint64_t operations, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const uint64_t now = os::NowNs();
  operations_.Take(now, operations);
  bytes_.Take(now, bytes);
}

// All that may go now, linked by next_, taken out of the line.
Throttle::Waiter* Throttle::TakeLocked(uint64_t now) {
  Waiter* gone = nullptr;
  Waiter** end = &gone;
  while (line_.first() && WaitLocked(now) == 0) {
    Waiter& waiter = *line_.first();
    operations_.Take(now, 1);
    bytes_.Take(now, waiter.bytes_);
    Unlink(waiter);
    *end = &waiter;
    end = &waiter.next_;
  }
  return gone;
}

void Throttle::Release(uint64_t now) {
  Waiter* gone;
  {
    std::lock_guard lock(mutex_);
    if (scheduled_ <= now) scheduled_ = 0;
    gone = TakeLocked(now);
    if (line_.first()) Schedule(now + std::max(WaitLocked(now), kSlice));
  }
  while (gone) {
    Waiter* const waiter = gone;
    gone = waiter->next_;
    waiter->Admitted();
  }
}

void Throttle::Set(const Limits& limits) {
  const bool active = limits.iops.average > 0 || limits.bps.average > 0;
  if (active) Pacer::Get().Start();
  {
    std::lock_guard lock(mutex_);
    limits_ = limits;
    operations_.Set(limits.iops);
    bytes_.Set(limits.bps);
    active_.store(active, std::memory_order_relaxed);
    if (line_.first()) Schedule(os::NowNs());
  }
}

Limits Throttle::limits() const {
  std::lock_guard lock(mutex_);
  return limits_;
}

}  // namespace vioctl::storage
