#include "vhost_user/inflight.h"

#include <sys/stat.h>

#include <algorithm>
#include <cassert>

#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint64_t kAlign = 64;         // of each queue's region
constexpr uint64_t kPackedHeader = 32;  // of a packed ring's region, the larger one
constexpr uint64_t kEntry = 32;
constexpr uint64_t kMaxOffset = uint64_t{1} << 40;

// Stores in the order of the program: the process can be killed between any two of them.
template <typename T>
void Store(T& to, T value) {
  __atomic_store_n(&to, value, __ATOMIC_RELEASE);
}
template <typename T>
T Load(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_RELAXED);
}

}  // namespace

uint64_t InflightRegion::QueueBytes(uint32_t size) { return os::RoundUp(kPackedHeader + kEntry * size, kAlign); }

InflightRegion::InflightRegion(int fd, uint64_t bytes, uint64_t offset, uint32_t queues, uint32_t size)
    : queues_(queues), size_(size) {
  struct stat st;
  Check(::fstat(fd, &st), "fstat", "in-flight region");
  if (queues == 0 || bytes > kMaxOffset || offset > kMaxOffset || offset % kAlign ||
      offset + bytes > static_cast<uint64_t>(st.st_size))
    throw SysError(EINVAL, "mmap", "in-flight region");
  stride_ = os::RoundDown(bytes / queues, sizeof(uint64_t));
  const uint64_t start = os::RoundDown(offset, os::PageSizeOf(fd));
  map_ = os::GuardedMapping(fd, offset - start + bytes, true, static_cast<off_t>(start));
  at_ = map_.get() + (offset - start);
}

uint8_t* InflightRegion::Queue(uint32_t index, uint32_t num, size_t header, size_t entry) const {
  if (index >= queues_ || num > size_ || header + entry * num > stride_)
    throw SysError(EINVAL, "vring", "the in-flight region has no room for the queue");
  return at_ + stride_ * index;
}

SplitInflight::SplitInflight(std::shared_ptr<const InflightRegion> region, uint32_t queue, uint16_t num)
    : region_(std::move(region)), num_(num) {
  uint8_t* at = region_->Queue(queue, num, sizeof(Header), sizeof(Entry));
  header_ = reinterpret_cast<Header*>(at);
  entries_ = reinterpret_cast<Entry*>(at + sizeof(Header));
}

std::optional<std::vector<uint16_t>> SplitInflight::Recover(uint16_t used) {
  const auto batch = static_cast<uint16_t>(used - Load(header_->used_idx));
  const bool fresh = Load(header_->version) != kVersion;
  if (fresh || batch > num_) {  // new, or the driver has begun the ring anew since
    for (uint32_t i = 0; i < num_; i++) Store(entries_[i].inflight, uint8_t{0});
    Store(header_->desc_num, num_);
    Store(header_->used_idx, used);
    Store(header_->version, kVersion);
    return std::nullopt;
  }
  uint16_t head = Load(header_->last_batch_head);
  for (uint16_t i = 0; i < batch && head < num_; i++) {
    Store(entries_[head].inflight, uint8_t{0});
    head = Load(entries_[head].next);
  }
  Store(header_->used_idx, used);
  std::vector<std::pair<uint64_t, uint16_t>> found;
  for (uint32_t i = 0; i < num_; i++)
    if (Load(entries_[i].inflight)) found.emplace_back(Load(entries_[i].counter), static_cast<uint16_t>(i));
  std::sort(found.begin(), found.end());
  std::vector<uint16_t> heads;
  for (const auto& [counter, index] : found) {
    counter_ = counter + 1;
    heads.push_back(index);
  }
  return heads;
}

bool SplitInflight::Take(uint16_t head) {
  Entry& entry = entries_[head];
  if (Load(entry.inflight)) return false;
  Store(entry.counter, counter_++);
  Store(entry.inflight, uint8_t{1});
  return true;
}

void SplitInflight::Undo(uint16_t head) { Store(entries_[head].inflight, uint8_t{0}); }

void SplitInflight::BeforePut(uint16_t head) {
  Store(entries_[head].next, Load(header_->last_batch_head));
  Store(header_->last_batch_head, head);
}

void SplitInflight::AfterPut(uint16_t head, uint16_t used) {
  Store(entries_[head].inflight, uint8_t{0});
  Store(header_->used_idx, used);
}

PackedInflight::PackedInflight(std::shared_ptr<const InflightRegion> region, uint32_t queue, uint16_t num)
    : region_(std::move(region)), num_(num) {
  uint8_t* at = region_->Queue(queue, num, sizeof(Header), sizeof(Entry));
  header_ = reinterpret_cast<Header*>(at);
  entries_ = reinterpret_cast<Entry*>(at + sizeof(Header));
}

// Returns the state of the last commit and the newest one. A new region is made; nothing is in flight then.
std::optional<std::pair<PackedInflight::State, PackedInflight::State>> PackedInflight::Begin(RingPlace used) {
  const State old{{Load(header_->old_used_idx), Load(header_->old_used_wrap_counter) != 0},
                  Load(header_->old_free_head)};
  const State now{{Load(header_->used_idx), Load(header_->used_wrap_counter) != 0}, Load(header_->free_head)};
  const auto fits = [this](const State& state) { return state.used.index < num_ && state.free <= num_; };
  if (Load(header_->version) == kVersion && Load(header_->desc_num) == num_ && fits(old) && fits(now))
    return std::pair{old, now};
  for (uint32_t i = 0; i < num_; i++) {
    Store(entries_[i].inflight, uint8_t{0});
    Store(entries_[i].next, static_cast<uint16_t>(i + 1));
  }
  state_ = {used, 0};
  Write();
  Commit();
  Store(header_->desc_num, num_);
  Store(header_->version, kVersion);
  return std::nullopt;
}

void PackedInflight::Write() {
  Store(header_->free_head, state_.free);
  Store(header_->used_idx, state_.used.index);
  Store(header_->used_wrap_counter, uint8_t{state_.used.wrap});
}

// What was begun is done: the new values are the old ones of the next time.
void PackedInflight::Commit() {
  Store(header_->old_free_head, state_.free);
  Store(header_->old_used_idx, state_.used.index);
  Store(header_->old_used_wrap_counter, uint8_t{state_.used.wrap});
}

std::vector<PackedInflight::Chain> PackedInflight::Resume() {
  Write();
  Commit();
  uint16_t free = state_.free;
  for (uint32_t i = 0; i < num_ && free < num_; i++) {
    Store(entries_[free].inflight, uint8_t{0});
    free = Load(entries_[free].next);
  }
  std::vector<std::pair<uint64_t, uint16_t>> found;
  for (uint32_t i = 0; i < num_; i++)
    if (Load(entries_[i].inflight)) found.emplace_back(Load(entries_[i].counter), static_cast<uint16_t>(i));
  std::sort(found.begin(), found.end());
  std::vector<Chain> chains;
  uint32_t total = 0;
  for (const auto& [counter, index] : found) {
    counter_ = counter + 1;
    Chain chain{index, {}};
    uint16_t at = index;
    for (uint32_t left = Load(entries_[index].num); left > 0 && at < num_ && total < num_; left--, total++) {
      const Entry& entry = entries_[at];
      chain.descs.push_back({Load(entry.addr), Load(entry.len), Load(entry.flags), Load(entry.id)});
      at = Load(entry.next);
    }
    chains.push_back(std::move(chain));
  }
  return chains;
}

int PackedInflight::Take(const std::vector<Desc>& descs) {
  assert(!descs.empty());
  // The whole path is looked at before anything is written, and followed as it was then.
  path_.clear();
  uint16_t at = state_.free;
  for (size_t i = 0; i < descs.size(); i++) {
    if (at >= num_) return -1;
    path_.push_back(at);
    at = Load(entries_[at].next);
  }
  const uint16_t first = path_.front();
  Entry& head = entries_[first];
  Store(head.num, static_cast<uint16_t>(descs.size()));
  Store(head.counter, counter_++);
  Store(head.inflight, uint8_t{1});
  for (size_t i = 0; i < descs.size(); i++) {
    Entry& entry = entries_[path_[i]];
    Store(entry.addr, descs[i].address);
    Store(entry.len, descs[i].size);
    Store(entry.flags, descs[i].flags);
    Store(entry.id, descs[i].next);
    Store(head.last, path_[i]);
  }
  SetFree(at);
  return first;
}

void PackedInflight::Undo(uint16_t entry) {
  Store(entries_[entry].inflight, uint8_t{0});
  SetFree(entry);
}

void PackedInflight::SetFree(uint16_t entry) {
  state_.free = entry;
  Store(header_->free_head, entry);
  Store(header_->old_free_head, entry);
}

void PackedInflight::BeforePut(uint16_t entry, uint16_t count) {
  const uint16_t last = Load(entries_[entry].last);
  if (last < num_) Store(entries_[last].next, state_.free);
  state_.free = entry;
  state_.used.Advance(count, num_);
  Write();
}

void PackedInflight::AfterPut(uint16_t entry) {
  Store(entries_[entry].inflight, uint8_t{0});
  Commit();
}

}  // namespace vioctl::vhost_user
