#include "vhost_user/virtqueue.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "common/error.h"
#include "vhost_user/packed_queue.h"
#include "vhost_user/split_queue.h"

namespace vioctl::vhost_user {

Desc CopyDesc(const uint8_t* at) {
  static_assert(sizeof(Desc) == 16);
  Desc desc;
  const volatile uint64_t* words = reinterpret_cast<const volatile uint64_t*>(at);
  const uint64_t copy[2] = {words[0], words[1]};
  memcpy(&desc, copy, sizeof desc);
  return desc;
}

std::unique_ptr<Virtqueue> Virtqueue::Make(std::shared_ptr<const GuestMemory> memory, const Layout& layout,
                                           uint32_t min_chain) {
  if (layout.features & kRingPacked) return std::make_unique<PackedQueue>(std::move(memory), layout, min_chain);
  return std::make_unique<SplitQueue>(std::move(memory), layout, min_chain);
}

Virtqueue::Virtqueue(const Layout& layout, uint32_t min_chain)
    : num_(layout.num),
      max_chain_(std::max(layout.num, min_chain)),
      event_idx_(layout.features & kEventIdx),
      indirect_(layout.features & kIndirectDesc) {
  if (layout.num == 0 || layout.num > kMaxQueueSize) throw SysError(EINVAL, "vring", "size is not 1 to 32768");
}

void Virtqueue::SetMemory(std::shared_ptr<const GuestMemory> memory, const Layout& layout) {
  const Sizes size = sizes();
  if (layout.desc % 16 || layout.avail % size.avail_align || layout.used % size.used_align)
    throw SysError(EINVAL, "vring", "address is not aligned");
  const auto at = [&](uint64_t address, uint64_t bytes) {
    uint8_t* host = layout.physical ? memory->Physical(address, bytes) : memory->Virtual(address, bytes);
    if (!host) throw SysError(EFAULT, "vring", "address lies outside memory");
    return host;
  };
  uint8_t* desc = at(layout.desc, size.desc);
  uint8_t* avail = at(layout.avail, size.avail);
  uint8_t* used = at(layout.used, size.used);
  desc_ = desc;
  avail_ = avail;
  used_ = used;
  memory_ = std::move(memory);
  log_ = layout.log;
  log_all_ = log_ && (layout.features & kLogAll);
  log_used_ = log_ && layout.log_used;
  log_address_ = layout.log_address;
}

Pop Virtqueue::Broken(const char* why) {
  error_ = why;
  return Pop::kBroken;
}

void Virtqueue::Clear(Chain& chain) {
  chain.out.clear();
  chain.in.clear();
  chain.out_size = chain.in_size = 0;
}

bool Virtqueue::Append(uint64_t address, uint32_t size, bool write, Chain& chain) {
  uint64_t left = size;
  while (left > 0) {
    uint64_t run = left;
    uint8_t* host = memory_->Run(address, &run);
    if (!host || run == 0) return false;
    assert(run <= left);
    (write ? chain.in : chain.out).push_back({host, run});
    address += run;
    left -= run;
  }
  (write ? chain.in_size : chain.out_size) += size;
  return true;
}

const char* Virtqueue::Add(const Desc& desc, Chain& chain, uint32_t& total) {
  if (++total > max_chain_) return "a descriptor chain is longer than the queue";
  const bool write = desc.flags & kDescWrite;
  if (!write && chain.in_size > 0) return "a readable descriptor follows a writable one";
  return Append(desc.address, desc.size, write, chain) ? nullptr : "a buffer lies outside memory";
}

const uint8_t* Virtqueue::Table(const Desc& desc, const char** why) const {
  *why = !indirect_               ? "an indirect descriptor where none may be"
         : desc.flags & kDescNext ? "an indirect descriptor has a successor"
         : desc.size == 0 || desc.size % 16 || desc.size / 16 > kMaxQueueSize ? "an indirect table has a bad size"
                                                                              : nullptr;
  if (*why) return nullptr;
  const uint8_t* table = memory_->Physical(desc.address, desc.size);
  if (table && desc.address % 16 == 0) return table;
  *why = "an indirect table lies outside memory";
  return nullptr;
}

}  // namespace vioctl::vhost_user
