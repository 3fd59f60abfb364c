// Limits of a source: I/O operations and bytes per second, with bursts. A request that comes too early waits here,
// before it holds a buffer, a thread or a place in a ring: it keeps nobody waiting but those behind it for the same
// source.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "common/line.h"

namespace vioctl::storage {

// A rate in units per second. After idle time, `burst` units per second are allowed for `seconds`.
struct Rate {
  uint64_t average = 0;  // 0: no limit
  uint64_t burst = 0;    // 0: as the average
  uint32_t seconds = 1;
};

struct Limits {
  Rate iops, bps;
};

// A bucket that leaks at the rate. A request may go while the bucket is not over-full, and pours all its units in: a
// large one is not refused, it delays those behind it. As QEMU's docs/throttle.txt, so that numbers mean the same here:
// - without a burst, the bucket holds what leaks in 100 ms;
// - with one, it holds burst * seconds; if that is longer than a second, a second bucket of 100 ms that leaks at the
// burst
//   rate paces the burst itself.
// Times are nanoseconds of any clock that does not go back.
class Bucket {
 public:
  void Set(const Rate& rate);
  // Time from now until a request may go; 0: it may.
  uint64_t Wait(uint64_t now) const;
  void Take(uint64_t now, uint64_t units);

 private:
  // A leaky bucket as the time at which it will be empty.
  struct Level {
    uint64_t rate = 0;  // 0: no limit
    uint64_t room = 0;  // ns that a full bucket leaks
    uint64_t empty_at = 0;
    uint64_t Wait(uint64_t now) const { return rate > 0 && empty_at > now + room ? empty_at - now - room : 0; }
    void Take(uint64_t now, uint64_t units);
  };
  Level average_, burst_;
};

class Throttle : public std::enable_shared_from_this<Throttle> {
 public:
  // A request that waits. It stays where it is until it is admitted, or has left.
  class Waiter : LineLink<Waiter> {
   public:
    virtual ~Waiter() = default;
    // It may go now. From another thread, once, without locks held; the waiter may be gone when this returns.
    virtual void Admitted() = 0;

   private:
    friend class Throttle;
    friend class Line<Waiter>;
    Waiter* next_ = nullptr;  // of those that are admitted together
    uint64_t bytes_ = 0;
  };

  // Whether there are limits: without them, Enter() need not be called.
  bool active() const { return active_.load(std::memory_order_relaxed); }

  // For a request of this size. True: it may go. False: Admitted() follows, in the order of the requests.
  bool Enter(Waiter& waiter, uint64_t bytes);
  // Takes a request back that has not been admitted. False: Admitted() has been called or is about to be.
  bool Leave(Waiter& waiter);
  // Counts what cannot wait any more; those behind it wait longer.
  void Charge(uint64_t operations, uint64_t bytes);

  // New limits hold at once, for those that wait too. Throws SysError if there is no thread to be had.
  void Set(const Limits& limits);
  Limits limits() const;
  // Requests that wait now, and those that had to wait so far.
  uint64_t waiting() const { return waiting_.load(std::memory_order_relaxed); }
  uint64_t delayed() const { return delayed_.load(std::memory_order_relaxed); }

 private:
  friend class Pacer;
  uint64_t WaitLocked(uint64_t now) const;
  Waiter* TakeLocked(uint64_t now);
  void Unlink(Waiter& waiter);
  void Release(uint64_t now);
  void Schedule(uint64_t when);

  std::atomic<bool> active_{false};
  std::atomic<uint64_t> waiting_{0}, delayed_{0};
  mutable std::mutex mutex_;
  Limits limits_;
  Bucket operations_, bytes_;
  Line<Waiter> line_;
  uint64_t scheduled_ = 0;  // when Release() is called next; 0: not at all
};

}  // namespace vioctl::storage
