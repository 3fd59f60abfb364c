// Bytes of data that the commands of one host may hold at a time, over all its connections. A command that finds no
// room waits before it holds a buffer.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>

#include "common/line.h"

namespace vioctl::nvme {

class Budget {
 public:
  // A command that waits. It stays where it is until it is admitted, or has left.
  class Waiter : LineLink<Waiter> {
   public:
    virtual ~Waiter() = default;
    // It has got its bytes. From another thread, once, without locks held; the waiter may be gone when this returns.
    virtual void Admitted() = 0;

   private:
    friend class Budget;
    friend class Line<Waiter>;
    uint64_t bytes_ = 0;
  };

  // Whether there is a limit: without one, Enter() need not be called.
  bool active() const { return active_.load(std::memory_order_relaxed); }

  // Takes bytes, which Give() gives back. True: they are there; one command alone may take more than the limit. False:
  // Admitted() follows, in the order of the commands.
  bool Enter(Waiter& waiter, uint64_t bytes);
  // Takes a command back that has not been admitted: it has no bytes. False: Admitted() has been called or is about to
  // be.
  bool Leave(Waiter& waiter);
  // Takes bytes for a command that cannot wait.
  void Charge(uint64_t bytes);
  void Give(uint64_t bytes);

  // A new limit, 0 for none. It holds at once, for those that wait too.
  void Set(uint64_t limit);

 private:
  bool RoomLocked(uint64_t bytes) const { return limit_ == 0 || used_ == 0 || used_ + bytes <= limit_; }
  void Admit();

  std::atomic<bool> active_{false};
  std::mutex mutex_;
  uint64_t limit_ = 0, used_ = 0;
  Line<Waiter> line_;
};

}  // namespace vioctl::nvme
