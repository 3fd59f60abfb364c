// A split virtqueue, device side (virtio 1.3, 2.7), over guest memory that the driver may change at any moment: every
// value is read once and checked before it is used.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "vhost_user/memory.h"

namespace vioctl::vhost_user {

constexpr uint64_t kIndirectDesc = 1ull << 28;
constexpr uint64_t kEventIdx = 1ull << 29;
constexpr uint16_t kDescNext = 1, kDescWrite = 2, kDescIndirect = 4;

// A chain of descriptors: what the driver gives to read, and room for the answer. Reused between pops.
struct Chain {
  uint16_t head = 0;
  std::vector<iovec> out;
  std::vector<iovec> in;
  uint64_t out_size = 0, in_size = 0;
};

enum class Pop { kChain, kEmpty, kBroken };

class Virtqueue {
 public:
  // Addresses are the front-end's virtual ones, or guest-physical ones with `physical` (GPA_ADDRESSES).
  struct Layout {
    uint32_t num = 0;
    uint64_t desc = 0, avail = 0, used = 0;
    uint16_t base = 0;
    uint64_t features = 0;
    bool physical = false;
  };

  // A chain has at most as many descriptors as the queue has entries (virtio 1.3, 2.7.5.3.1), or `min_chain` if that is
  // more: drivers build chains of seg_max + 2 descriptors in indirect tables even if the queue is smaller.
  // Throws SysError(EFAULT) for addresses outside memory, EINVAL for a bad size or alignment.
  Virtqueue(std::shared_ptr<const GuestMemory> memory, const Layout& layout, uint32_t min_chain = 0);

  // Goes on over another memory table, where the same ring may lie elsewhere. Throws as the constructor; then nothing
  // has changed. Chains that were taken point into the old memory: their holder keeps that alive.
  void SetMemory(std::shared_ptr<const GuestMemory> memory, const Layout& layout);

  // The next available chain. After kBroken, `error()` says what the driver did; the queue takes no more.
  Pop Next(Chain& chain);
  // Gives the chain of the last Next() back: the next call returns it again.
  void Undo() { next_avail_--; }
  // Puts a chain on the used ring. `written`: bytes of its writable part that hold data.
  void Put(uint16_t head, uint32_t written);
  // Whether the driver wants a notification for what was put since the last call.
  bool ShouldNotify();
  // Asks for kicks, or (without EVENT_IDX; with it, by not asking) for none. Look at the ring once more after asking.
  void WantKicks(bool want);
  // Index of the next entry to take from the available ring: what GET_VRING_BASE returns once nothing is in flight.
  uint16_t base() const { return next_avail_; }
  const char* error() const { return error_; }
  const std::shared_ptr<const GuestMemory>& memory() const { return memory_; }
  uint16_t size() const { return num_; }

 private:
  Pop Broken(const char* why);
  bool Append(uint64_t address, uint32_t size, bool write, Chain& chain);

  std::shared_ptr<const GuestMemory> memory_;
  uint16_t num_;
  uint32_t max_chain_;
  bool event_idx_, indirect_;
  const uint8_t* desc_ = nullptr;
  uint8_t* avail_ = nullptr;
  uint8_t* used_ = nullptr;
  uint16_t next_avail_;
  uint16_t next_used_;
  uint16_t signalled_used_;
  bool signalled_valid_ = false;
  const char* error_ = nullptr;
};

}  // namespace vioctl::vhost_user
