#include "vhost_user/packed_queue.h"

#include <cassert>
#include <cstring>
#include <utility>

#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

constexpr uint16_t kAvail = 1u << 7, kUsed = 1u << 15;     // flags of a descriptor
constexpr uint16_t kWrap = 1u << 15;                       // beside an index
enum : uint16_t { kEnable = 0, kDisable = 1, kDesc = 2 };  // flags of event suppression

bool Available(uint16_t flags, bool wrap) { return !!(flags & kAvail) == wrap && !!(flags & kUsed) != wrap; }
bool Submitted(uint16_t flags, bool wrap) { return !!(flags & kAvail) == wrap && !!(flags & kUsed) == wrap; }

// The packed ring has the buffer id before the flags.
Desc CopyPacked(const uint8_t* at) {
  Desc desc = CopyDesc(at);
  std::swap(desc.flags, desc.next);
  return desc;
}

RingPlace PlaceOf(uint32_t word) { return {static_cast<uint16_t>(word & ~kWrap & 0xffff), (word & kWrap) != 0}; }
uint16_t WordOf(RingPlace place) { return static_cast<uint16_t>(place.index | (place.wrap ? kWrap : 0)); }

}  // namespace

PackedQueue::PackedQueue(std::shared_ptr<const GuestMemory> memory, const Layout& layout, uint32_t min_chain)
    : Virtqueue(layout, min_chain), avail_place_(PlaceOf(layout.base)), used_place_(PlaceOf(layout.base >> 16)) {
  if (avail_place_.index >= num_ || used_place_.index >= num_)
    throw SysError(EINVAL, "vring", "base is beyond the queue");
  SetMemory(std::move(memory), layout);
  if (!layout.inflight) return;
  inflight_.emplace(layout.inflight, layout.index, static_cast<uint16_t>(num_));
  const RingPlace before = used_place_;
  resume_ = inflight_->Recover(&used_place_, [this](RingPlace place) {
    return Submitted(Load16(At(place.index) + 14, __ATOMIC_ACQUIRE), place.wrap);
  });
  if (resume_.empty() && used_place_ == before) return;
  avail_place_ = used_place_;  // and then what is in flight, which was taken in order behind it
  for (const auto& chain : resume_) avail_place_.Advance(static_cast<uint32_t>(chain.descs.size()), num_);
}

Pop PackedQueue::Next(Chain& chain) {
  if (error_) return Pop::kBroken;
  chain.again = resuming();
  if (chain.again) {
    descs_ = resume_[resumed_].descs;
    chain.entry = resume_[resumed_].entry;
    if (descs_.empty()) return Broken("the in-flight region is damaged");
  } else {
    if (!Available(Load16(At(avail_place_.index) + 14, __ATOMIC_ACQUIRE), avail_place_.wrap)) return Pop::kEmpty;
    if (const char* why = Gather()) return Broken(why);
  }
  if (const char* why = Walk(chain)) return Broken(why);
  chain.head = descs_.back().next;
  chain.count = static_cast<uint16_t>(descs_.size());
  if (chain.again) {
    resumed_++;
    return Pop::kChain;
  }
  if (inflight_) {
    const int entry = inflight_->Take(descs_);
    if (entry < 0) return Broken("more descriptors are in flight than the queue has");
    chain.entry = static_cast<uint16_t>(entry);
  }
  avail_place_.Advance(chain.count, num_);
  return Pop::kChain;
}

// Copies the descriptors of the next chain. Returns what is wrong, or nullptr.
const char* PackedQueue::Gather() {
  descs_.clear();
  RingPlace place = avail_place_;
  for (;;) {
    if (descs_.size() == num_) return "a descriptor chain has a loop";
    const Desc desc = CopyPacked(At(place.index));
    // The driver makes the first one available last, so all of a chain are.
    if (!Available(desc.flags, place.wrap)) return "a descriptor chain is not wholly available";
    descs_.push_back(desc);
    place.Advance(1, num_);
    if (!(desc.flags & kDescNext)) return nullptr;
  }
}

const char* PackedQueue::Walk(Chain& chain) {
  Clear(chain);
  uint32_t total = 0;
  for (const Desc& desc : descs_) {
    const char* why = nullptr;
    if (desc.flags & kDescIndirect) {
      const uint8_t* table = Table(desc, &why);
      if (!table) return why;
      if (descs_.size() > 1) return "an indirect descriptor where none may be";
      for (uint32_t i = 0; i < desc.size / 16; i++) {
        const Desc inner = CopyPacked(table + 16 * i);
        if (inner.flags & kDescIndirect) return "an indirect descriptor where none may be";
        why = Add(inner, chain, total);
        if (why) return why;
      }
      continue;
    }
    why = Add(desc, chain, total);
    if (why) return why;
  }
  return nullptr;
}

void PackedQueue::Undo(const Chain& chain) {
  if (chain.again) {
    assert(resumed_ > 0);
    resumed_--;
    return;
  }
  if (inflight_) inflight_->Undo(chain.entry);
  // Back by the chain's entries: forward by the rest of the ring, and around.
  avail_place_.Advance(num_ - chain.count, num_);
  avail_place_.wrap = !avail_place_.wrap;
}

void PackedQueue::Put(const Chain& chain, uint32_t written) {
  assert(chain.count > 0 && chain.count <= num_);
  uint8_t* at = At(used_place_.index);
  if (inflight_) inflight_->BeforePut(chain.entry, chain.count);
  const uint16_t flags =
      static_cast<uint16_t>((used_place_.wrap ? kAvail | kUsed : 0) | (written > 0 ? kDescWrite : 0));
  memcpy(at + 8, &written, sizeof written);
  memcpy(at + 12, &chain.head, sizeof chain.head);
  Store16(at + 14, flags, __ATOMIC_RELEASE);
  if (inflight_) inflight_->AfterPut(chain.entry);
  used_place_.Advance(chain.count, num_);
  put_ += chain.count;
  LogRing(at, sizeof(Desc));
}

bool PackedQueue::ShouldNotify() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);  // what was put must be visible before the driver's wish is read
  const uint32_t put = std::exchange(put_, 0);
  const uint16_t flags = Load16(avail_ + 2, __ATOMIC_RELAXED);
  if (flags != kDesc || !event_idx_) return flags != kDisable;
  const RingPlace event = PlaceOf(Load16(avail_, __ATOMIC_RELAXED));
  // virtio 1.3, 2.8.10: signal when the place was passed by this batch. It lies in this round or the one before.
  const int64_t now = used_place_.index;
  const int64_t wanted = event.wrap == used_place_.wrap ? event.index : int64_t{event.index} - num_;
  return wanted < now && wanted >= now - put;
}

void PackedQueue::WantKicks(bool want) {
  if (want && event_idx_) {
    Store16(used_, WordOf(avail_place_), __ATOMIC_RELAXED);
    Store16(used_ + 2, kDesc, __ATOMIC_RELEASE);
  } else {
    Store16(used_ + 2, want ? kEnable : kDisable, __ATOMIC_RELAXED);
  }
  LogRing(used_, 4);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint32_t PackedQueue::base() const { return WordOf(avail_place_) | static_cast<uint32_t>(WordOf(used_place_)) << 16; }

}  // namespace vioctl::vhost_user
