#include "vhost_user/split_queue.h"

#include <cassert>
#include <cstring>

#include "common/error.h"

namespace vioctl::vhost_user {

SplitQueue::SplitQueue(std::shared_ptr<const GuestMemory> memory, const Layout& layout, uint32_t min_chain)
    : Virtqueue(layout, min_chain), next_avail_(static_cast<uint16_t>(layout.base)) {
  if (num_ & (num_ - 1)) throw SysError(EINVAL, "vring", "size is no power of two up to 32768");
  SetMemory(std::move(memory), layout);
  next_used_ = signalled_used_ = Load16(used_ + 2, __ATOMIC_RELAXED);
  if (!layout.inflight) return;
  inflight_.emplace(layout.inflight, layout.index, static_cast<uint16_t>(num_));
  auto found = inflight_->Recover(next_used_);
  if (!found) return;
  resume_ = std::move(*found);
  // Everything before the used index was answered, and what is in flight was taken in order behind it.
  next_avail_ = static_cast<uint16_t>(next_used_ + resume_.size());
}

Pop SplitQueue::Next(Chain& chain) {
  if (error_) return Pop::kBroken;
  chain.again = resuming();
  if (chain.again) {
    chain.head = resume_[resumed_];
  } else {
    const uint16_t available = Load16(avail_ + 2, __ATOMIC_ACQUIRE);
    const auto waiting = static_cast<uint16_t>(available - next_avail_);
    if (waiting == 0) return Pop::kEmpty;
    if (waiting > num_) return Broken("the available index is more than the queue size ahead");
    chain.head = Load16(avail_ + 4 + 2 * (next_avail_ & (num_ - 1)), __ATOMIC_RELAXED);
    if (chain.head >= num_) return Broken("a head index is beyond the queue");
  }
  if (const char* why = Walk(chain)) return Broken(why);
  if (chain.again) {
    resumed_++;
  } else {
    if (inflight_ && !inflight_->Take(chain.head)) return Broken("a head index is made available twice");
    next_avail_++;
  }
  return Pop::kChain;
}

// Follows a chain from its head. Returns what is wrong, or nullptr.
const char* SplitQueue::Walk(Chain& chain) {
  Clear(chain);
  const uint8_t* table = desc_;
  uint32_t entries = num_, at = chain.head, seen = 0, total = 0;
  bool inside = false;
  for (;;) {
    // A chain that uses each entry of its table once cannot be longer than the table.
    if (++seen > entries) return "a descriptor chain has a loop";
    const Desc desc = CopyDesc(table + 16 * at);
    const char* why = nullptr;
    if (desc.flags & kDescIndirect) {
      if (inside) return "an indirect descriptor where none may be";
      table = Table(desc, &why);
      if (!table) return why;
      inside = true;
      entries = desc.size / 16;
      at = seen = 0;
      continue;
    }
    why = Add(desc, chain, total);
    if (why) return why;
    if (!(desc.flags & kDescNext)) return nullptr;
    at = desc.next;
    if (at >= entries) return "a descriptor index is beyond the table";
  }
}

void SplitQueue::Undo(const Chain& chain) {
  if (chain.again) {
    assert(resumed_ > 0);
    resumed_--;
    return;
  }
  if (inflight_) inflight_->Undo(chain.head);
  next_avail_--;
}

void SplitQueue::Put(const Chain& chain, uint32_t written) {
  assert(chain.head < num_);
  const uint64_t element = chain.head | static_cast<uint64_t>(written) << 32;
  const uint64_t offset = 4 + 8 * (next_used_ & (num_ - 1));
  if (inflight_) inflight_->BeforePut(chain.head);
  memcpy(used_ + offset, &element, sizeof element);
  Store16(used_ + 2, ++next_used_, __ATOMIC_RELEASE);
  if (inflight_) inflight_->AfterPut(chain.head, next_used_);
  if (!log_used_) return;
  log_->Mark(log_address_ + offset, sizeof element);
  log_->Mark(log_address_ + 2, sizeof next_used_);
}

bool SplitQueue::ShouldNotify() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // the used index must be visible before the driver's wish is read
  if (!event_idx_) return !(Load16(avail_, __ATOMIC_RELAXED) & 1);
  const uint16_t event = Load16(avail_ + 4 + 2 * num_, __ATOMIC_RELAXED);
  const uint16_t old = signalled_used_;
  const bool valid = signalled_valid_;
  signalled_used_ = next_used_;
  signalled_valid_ = true;
  // virtio 1.3, 2.7.7.1: signal when the event index was passed by this batch
  return !valid || static_cast<uint16_t>(next_used_ - event - 1) < static_cast<uint16_t>(next_used_ - old);
}

void SplitQueue::WantKicks(bool want) {
  if (event_idx_) {
    if (want) Store16(used_ + 4 + 8 * num_, next_avail_, __ATOMIC_RELAXED);
  } else {
    Store16(used_, want ? 0 : 1, __ATOMIC_RELAXED);
  }
  if (log_used_) log_->Mark(log_address_ + (event_idx_ ? 4 + 8 * num_ : 0), 2);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

}  // namespace vioctl::vhost_user
