#include "vhost_user/virtqueue.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

struct Desc {
  uint64_t address;
  uint32_t size;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Desc) == 16);

constexpr uint32_t kMaxNum = 32768;

uint16_t Load16(const uint8_t* at, int order) { return __atomic_load_n(reinterpret_cast<const uint16_t*>(at), order); }
void Store16(uint8_t* at, uint16_t value, int order) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(at), value, order);
}

// One consistent copy of a descriptor: the compiler must not read the guest's memory twice.
Desc Copy(const uint8_t* at) {
  Desc desc;
  const volatile uint64_t* words = reinterpret_cast<const volatile uint64_t*>(at);
  const uint64_t copy[2] = {words[0], words[1]};
  memcpy(&desc, copy, sizeof desc);
  return desc;
}

}  // namespace

Virtqueue::Virtqueue(std::shared_ptr<const GuestMemory> memory, const Layout& layout, uint32_t min_chain)
    : num_(static_cast<uint16_t>(layout.num)),
      max_chain_(std::max(layout.num, min_chain)),
      event_idx_(layout.features & kEventIdx),
      indirect_(layout.features & kIndirectDesc),
      next_avail_(layout.base) {
  if (layout.num == 0 || layout.num > kMaxNum || (layout.num & (layout.num - 1)))
    throw SysError(EINVAL, "vring", "size is no power of two up to 32768");
  SetMemory(std::move(memory), layout);
  next_used_ = signalled_used_ = Load16(used_ + 2, __ATOMIC_RELAXED);
}

void Virtqueue::SetMemory(std::shared_ptr<const GuestMemory> memory, const Layout& layout) {
  if (layout.desc % 16 || layout.avail % 2 || layout.used % 4)
    throw SysError(EINVAL, "vring", "address is not aligned");
  const auto at = [&](uint64_t address, uint64_t size) {
    uint8_t* host = layout.physical ? memory->Physical(address, size) : memory->Virtual(address, size);
    if (!host) throw SysError(EFAULT, "vring", "address lies outside memory");
    return host;
  };
  const uint8_t* desc = at(layout.desc, 16ull * num_);
  uint8_t* avail = at(layout.avail, 6 + 2ull * num_);
  uint8_t* used = at(layout.used, 6 + 8ull * num_);
  desc_ = desc;
  avail_ = avail;
  used_ = used;
  memory_ = std::move(memory);
}

Pop Virtqueue::Broken(const char* why) {
  error_ = why;
  return Pop::kBroken;
}

// Adds a buffer, in as many pieces as it takes where regions adjoin.
bool Virtqueue::Append(uint64_t address, uint32_t size, bool write, Chain& chain) {
  uint64_t left = size;
  while (left > 0) {
    uint64_t run = left;
    uint8_t* host = memory_->Run(address, &run);
    if (!host || run == 0) return false;
    (write ? chain.in : chain.out).push_back({host, run});
    address += run;
    left -= run;
  }
  (write ? chain.in_size : chain.out_size) += size;
  return true;
}

Pop Virtqueue::Next(Chain& chain) {
  if (error_) return Pop::kBroken;
  const uint16_t available = Load16(avail_ + 2, __ATOMIC_ACQUIRE);
  const auto waiting = static_cast<uint16_t>(available - next_avail_);
  if (waiting == 0) return Pop::kEmpty;
  if (waiting > num_) return Broken("the available index is more than the queue size ahead");
  chain.out.clear();
  chain.in.clear();
  chain.out_size = chain.in_size = 0;
  chain.head = Load16(avail_ + 4 + 2 * (next_avail_ & (num_ - 1)), __ATOMIC_RELAXED);
  if (chain.head >= num_) return Broken("a head index is beyond the queue");
  const uint8_t* table = desc_;
  uint32_t entries = num_, at = chain.head, seen = 0, total = 0;
  bool inside = false;
  for (;;) {
    // A chain that uses each entry of its table once cannot be longer than the table.
    if (++seen > entries) return Broken("a descriptor chain has a loop");
    const Desc desc = Copy(table + 16 * at);
    if (desc.flags & kDescIndirect) {
      if (!indirect_ || inside) return Broken("an indirect descriptor where none may be");
      if (desc.flags & kDescNext) return Broken("an indirect descriptor has a successor");
      if (desc.size == 0 || desc.size % 16 || desc.size / 16 > kMaxNum)
        return Broken("an indirect table has a bad size");
      table = memory_->Physical(desc.address, desc.size);
      if (!table || desc.address % 16) return Broken("an indirect table lies outside memory");
      inside = true;
      entries = desc.size / 16;
      at = seen = 0;
      continue;
    }
    if (++total > max_chain_) return Broken("a descriptor chain is longer than the queue");
    const bool write = desc.flags & kDescWrite;
    if (!write && chain.in_size > 0) return Broken("a readable descriptor follows a writable one");
    if (!Append(desc.address, desc.size, write, chain)) return Broken("a buffer lies outside memory");
    if (!(desc.flags & kDescNext)) break;
    at = desc.next;
    if (at >= entries) return Broken("a descriptor index is beyond the table");
  }
  next_avail_++;
  return Pop::kChain;
}

void Virtqueue::Put(uint16_t head, uint32_t written) {
  const uint64_t element = head | static_cast<uint64_t>(written) << 32;
  memcpy(used_ + 4 + 8 * (next_used_ & (num_ - 1)), &element, sizeof element);
  Store16(used_ + 2, ++next_used_, __ATOMIC_RELEASE);
}

bool Virtqueue::ShouldNotify() {
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

void Virtqueue::WantKicks(bool want) {
  if (event_idx_) {
    if (want) Store16(used_ + 4 + 8 * num_, next_avail_, __ATOMIC_RELAXED);
  } else {
    Store16(used_, want ? 0 : 1, __ATOMIC_RELAXED);
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

}  // namespace vioctl::vhost_user
