// What a queue's requests in flight are, kept in memory that outlives this process (vhost-user specification, "Inflight
// I/O tracking"): the front-end keeps the region, and the next back-end finishes what this one has taken and not
// answered. The front-end can write to the region at any time: every value is read once, checked and then passed on.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "os/bus_guard.h"

namespace vioctl::vhost_user {

// A descriptor of a ring as it lies in memory; the packed ring and its region have the same fields.
struct Desc {
  uint64_t address = 0;
  uint32_t size = 0;
  uint16_t flags = 0;
  uint16_t next = 0;  // packed: buffer id
};

// The memory of all queues.
class InflightRegion {
 public:
  // Bytes that one queue needs, for either kind of ring. size: entries.
  static uint64_t QueueBytes(uint32_t size);
  // Maps the regions of `queues` queues with `size` entries; each has an equal part of `bytes`, whichever back-end made
  // them. fd stays the caller's. Throws SysError.
  InflightRegion(int fd, uint64_t bytes, uint64_t offset, uint32_t queues, uint32_t size);

  // Where the region of a queue begins. Throws SysError EINVAL if it has no room for a header and `num` entries.
  uint8_t* Queue(uint32_t index, uint32_t num, size_t header, size_t entry) const;

 private:
  os::GuardedMapping map_;
  uint8_t* at_;
  uint64_t stride_;
  uint32_t queues_, size_;
};

// The region of a split ring. One thread.
class SplitInflight {
 public:
  SplitInflight(std::shared_ptr<const InflightRegion> region, uint32_t queue, uint16_t num);

  // Mends what an end in the middle of Put() has left. used: the ring's used index.
  // Returns the heads that are in flight, in the order in which they were taken; nothing if the region was new.
  std::optional<std::vector<uint16_t>> Recover(uint16_t used);
  // A head was taken. False if it is in flight already.
  bool Take(uint16_t head);
  // It was given back unserved.
  void Undo(uint16_t head);
  // Before and after the used index moves over a head.
  void BeforePut(uint16_t head);
  void AfterPut(uint16_t head, uint16_t used);

 private:
  struct Entry {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
  };
  struct Header {
    uint64_t features;
    uint16_t version, desc_num, last_batch_head, used_idx;
  };
  static_assert(sizeof(Entry) == 16 && sizeof(Header) == 16);

  std::shared_ptr<const InflightRegion> region_;
  Header* header_;
  Entry* entries_;
  uint16_t num_;
  uint64_t counter_ = 0;
};

// A place in a packed ring: index and wrap counter.
struct RingPlace {
  uint16_t index = 0;
  bool wrap = true;
  // Goes on by `count` entries, at most once around.
  void Advance(uint32_t count, uint32_t num) {
    const uint32_t next = index + count;
    wrap = next >= num ? !wrap : wrap;
    index = static_cast<uint16_t>(next >= num ? next - num : next);
  }
  bool operator==(const RingPlace&) const = default;
};

// The region of a packed ring. One thread.
class PackedInflight {
 public:
  struct Chain {
    uint16_t entry;
    std::vector<Desc> descs;
  };

  PackedInflight(std::shared_ptr<const InflightRegion> region, uint32_t queue, uint16_t num);

  // used: where the ring begins if the region is new; where it goes on is returned in it. submitted(place) tells
  // whether the used descriptor at a place was written. Returns the chains that are in flight, in the order in which
  // they were taken.
  template <typename F>
  std::vector<Chain> Recover(RingPlace* used, F&& submitted) {
    const auto begun = Begin(*used);
    if (!begun) return {};
    const auto& [old, now] = *begun;
    // What was begun and not submitted is rolled back.
    state_ = now.used != old.used && submitted(old.used) ? now : old;
    *used = state_.used;
    return Resume();
  }
  // A chain was taken: one descriptor or more. Returns its entry, or -1 if the region has no room: the driver has more
  // in flight than fits.
  int Take(const std::vector<Desc>& descs);
  // The chain that was taken last is given back unserved.
  void Undo(uint16_t entry);
  // Before and after the used descriptor of a chain of `count` entries is written.
  void BeforePut(uint16_t entry, uint16_t count);
  void AfterPut(uint16_t entry);

 private:
  struct Entry {
    uint8_t inflight, padding;
    uint16_t next, last, num;
    uint64_t counter;
    uint16_t id, flags;
    uint32_t len;
    uint64_t addr;
  };
  struct Header {
    uint64_t features;
    uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
    uint8_t used_wrap_counter, old_used_wrap_counter, padding[7];
  };
  static_assert(sizeof(Entry) == 32 && sizeof(Header) == 32);

  // Where the ring goes on, and the first free entry; num_ if there is none.
  struct State {
    RingPlace used{};
    uint16_t free = 0;
  };

  std::optional<std::pair<State, State>> Begin(RingPlace used);
  void Write();
  void Commit();
  void SetFree(uint16_t entry);
  std::vector<Chain> Resume();

  std::shared_ptr<const InflightRegion> region_;
  Header* header_;
  Entry* entries_;
  uint16_t num_;
  uint64_t counter_ = 0;
  State state_;                 // ours; the header only receives it
  std::vector<uint16_t> path_;  // entries of the chain that is being taken
};

}  // namespace vioctl::vhost_user
