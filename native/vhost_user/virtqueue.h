// A virtqueue, device side (virtio 1.3, 2.7 and 2.8), over guest memory that the driver may change at any moment: every
// value is read once and checked before it is used.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "vhost_user/dirty_log.h"
#include "vhost_user/inflight.h"
#include "vhost_user/memory.h"
#include "vhost_user/shared.h"

namespace vioctl::vhost_user {

constexpr uint16_t kDescNext = 1, kDescWrite = 2, kDescIndirect = 4;

// A chain of descriptors: what the driver gives to read, and room for the answer. Reused between pops.
struct Chain {
  uint16_t head = 0;   // what the driver knows it by: its first descriptor, or a packed ring's buffer id
  uint16_t count = 1;  // entries of a packed ring that it takes
  uint16_t entry = 0;  // of a packed ring's in-flight region
  bool again = false;  // an earlier back-end took it and did not answer
  std::vector<iovec> out;
  std::vector<iovec> in;
  uint64_t out_size = 0, in_size = 0;
};

enum class Pop { kChain, kEmpty, kBroken };

// What both kinds of ring share. One thread.
class Virtqueue {
 public:
  // Addresses are the front-end's virtual ones, or guest-physical ones with `physical` (GPA_ADDRESSES).
  struct Layout {
    uint32_t num = 0;
    uint64_t desc = 0, avail = 0, used = 0;
    // SET_VRING_BASE: the next available entry; of a packed ring with its wrap counter (bit 15), and the used one
    // above.
    uint32_t base = 0;
    uint64_t features = 0;
    bool physical = false;
    uint32_t index = 0;                                // of the queue in its device
    std::shared_ptr<const InflightRegion> inflight{};  // none: requests in flight are not kept
    std::shared_ptr<const DirtyLog> log{};             // none: nothing is logged
    bool log_used = false;                             // VHOST_VRING_F_LOG
    uint64_t log_address = 0;                          // guest-physical, of the used ring
  };

  // A ring of the kind that `layout.features` says. A chain has at most as many descriptors as the queue has entries
  // (virtio 1.3, 2.7.5.3.1), or `min_chain` if that is more: drivers build chains of seg_max + 2 descriptors in
  // indirect tables even if the queue is smaller. Throws SysError(EFAULT) for addresses outside memory, EINVAL for a
  // bad size or alignment.
  static std::unique_ptr<Virtqueue> Make(std::shared_ptr<const GuestMemory> memory, const Layout& layout,
                                         uint32_t min_chain = 0);
  virtual ~Virtqueue() = default;
  Virtqueue(const Virtqueue&) = delete;
  Virtqueue& operator=(const Virtqueue&) = delete;

  // Goes on over another memory table, where the same ring may lie elsewhere, and with another log. Throws as Make;
  // then nothing has changed. Chains that were taken point into the old memory: their holder keeps that alive.
  void SetMemory(std::shared_ptr<const GuestMemory> memory, const Layout& layout);

  // The next chain: what an earlier back-end left in flight, then what is available. After kBroken, `error()` says what
  // the driver did; the queue takes no more.
  virtual Pop Next(Chain& chain) = 0;
  // Gives the chain of the last Next() back: the next call returns it again.
  virtual void Undo(const Chain& chain) = 0;
  // Answers a chain. `written`: bytes of its writable part that hold data.
  virtual void Put(const Chain& chain, uint32_t written) = 0;
  // Whether the driver wants a notification for what was put since the last call.
  virtual bool ShouldNotify() = 0;
  // Asks for kicks, or for none. Look at the ring once more after asking.
  virtual void WantKicks(bool want) = 0;
  // What GET_VRING_BASE returns once nothing is in flight.
  virtual uint32_t base() const = 0;
  // Whether chains of an earlier back-end are still to be returned by Next().
  virtual bool resuming() const = 0;

  // Logs what the device has written into a chain's buffers: not its own entries, those it logs itself.
  void LogWrite(const GuestMemory& memory, const void* at, uint64_t length) const {
    if (log_all_) log_->MarkHost(memory, at, length);
  }
  bool logs() const { return log_all_; }

  const char* error() const { return error_; }
  const std::shared_ptr<const GuestMemory>& memory() const { return memory_; }
  uint32_t size() const { return num_; }

 protected:
  // Bytes of a ring's three parts, and what their addresses are multiples of.
  struct Sizes {
    uint64_t desc, avail, used;
    uint64_t avail_align, used_align;
  };

  Virtqueue(const Layout& layout, uint32_t min_chain);
  virtual Sizes sizes() const = 0;

  Pop Broken(const char* why);
  static void Clear(Chain& chain);
  // Adds a buffer, in as many pieces as it takes where regions adjoin. False if it lies outside memory.
  bool Append(uint64_t address, uint32_t size, bool write, Chain& chain);
  // Adds one descriptor that has a buffer. Returns what is wrong, or nullptr.
  const char* Add(const Desc& desc, Chain& chain, uint32_t& total);
  // Host address of an indirect table, or what is wrong.
  const uint8_t* Table(const Desc& desc, const char** why) const;

  std::shared_ptr<const GuestMemory> memory_;
  std::shared_ptr<const DirtyLog> log_;
  bool log_all_ = false, log_used_ = false;
  uint64_t log_address_ = 0;
  const uint32_t num_;
  const uint32_t max_chain_;
  const bool event_idx_, indirect_;
  uint8_t* desc_ = nullptr;
  uint8_t* avail_ = nullptr;
  uint8_t* used_ = nullptr;
  const char* error_ = nullptr;
};

// Values in memory that the driver writes at the same time.
inline uint16_t Load16(const uint8_t* at, int order) {
  return __atomic_load_n(reinterpret_cast<const uint16_t*>(at), order);
}
inline void Store16(uint8_t* at, uint16_t value, int order) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(at), value, order);
}
// One consistent copy of a descriptor: the compiler must not read the guest's memory twice.
Desc CopyDesc(const uint8_t* at);

}  // namespace vioctl::vhost_user
