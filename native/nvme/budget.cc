#include "nvme/budget.h"

#include "common/assert.h"

namespace vioctl::nvme {

bool Budget::Enter(Waiter& waiter, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  VIOCTL_ASSERT(!waiter.waits_);
  if (!first_ && RoomLocked(bytes)) {
    used_ += bytes;
    return true;
  }
  waiter.bytes_ = bytes;
  waiter.waits_ = true;
  waiter.before_ = last_;
  waiter.behind_ = nullptr;
  (last_ ? last_->behind_ : first_) = &waiter;
  last_ = &waiter;
  return false;
}

void Budget::Unlink(Waiter& waiter) {
  (waiter.before_ ? waiter.before_->behind_ : first_) = waiter.behind_;
  (waiter.behind_ ? waiter.behind_->before_ : last_) = waiter.before_;
  waiter.waits_ = false;
}

bool Budget::Leave(Waiter& waiter) {
  {
    std::lock_guard lock(mutex_);
    if (!waiter.waits_) return false;
    Unlink(waiter);
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
    if (!first_) return;
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
      next = first_;
      if (!next || !RoomLocked(next->bytes_)) return;
      used_ += next->bytes_;
      Unlink(*next);
    }
    next->Admitted();
  }
}

}  // namespace vioctl::nvme
