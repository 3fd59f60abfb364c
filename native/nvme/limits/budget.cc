#include "nvme/limits/budget.h"

#include "common/assert.h"

namespace vioctl::nvme {

bool Budget::Enter(Waiter& waiter, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  VIOCTL_ASSERT(!line_.Holds(waiter));
  if (!line_.first() && RoomLocked(bytes)) {
    used_ += bytes;
    return true;
  }
  waiter.bytes_ = bytes;
  line_.Push(waiter);
  return false;
}

bool Budget::Leave(Waiter& waiter) {
  {
    std::lock_guard lock(mutex_);
    if (!line_.Holds(waiter)) return false;
    line_.Remove(waiter);
  }
  Admit();  // those behind it may be smaller
  return true;
}

void Budget::Charge(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  used_ += bytes;
}

void Budget::Give(uint64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    VIOCTL_ASSERT(used_ >= bytes);
    used_ -= bytes;
    if (!line_.first()) return;
  }
  Admit();
}

void Budget::Set(uint64_t limit) {
  {
    std::lock_guard lock(mutex_);
    limit_ = limit;
    active_.store(limit > 0, std::memory_order_relaxed);
  }
  Admit();
}

// Admits those that wait, as far as there is room.
void Budget::Admit() {
  for (;;) {
    Waiter* next;
    {
      std::lock_guard lock(mutex_);
      next = line_.first();
      if (!next || !RoomLocked(next->bytes_)) return;
      used_ += next->bytes_;
      line_.Remove(*next);
    }
    next->Admitted();
  }
}

}  // namespace vioctl::nvme
