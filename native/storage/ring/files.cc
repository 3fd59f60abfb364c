#include "storage/ring/files.h"

#include <sys/resource.h>

#include <algorithm>

namespace vioctl::storage {

RingFiles::RingFiles(uring::Ring& ring, int wake) : ring_(ring), wake_(wake) {
  // A table may be as long as a process may have descriptors (io_sqe_files_register).
  rlimit limit{};
  const bool known = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  const auto slots = known ? static_cast<uint32_t>(std::min<rlim_t>(limit.rlim_cur, kSlots)) : kSlots;
  if (ring_.RegisterFilesSparse(slots) < 0) return;
  for (uint32_t i = slots; i-- > 0;) free_.push_back(i);
}

int RingFiles::SlotOf(const std::shared_ptr<Store>& store) {
  const auto found = slots_.find(store->id());
  if (found == slots_.end()) return Add(store);
  Slot& slot = found->second;
  if (slot.opened == store->opened() || Put(slot, *store)) return static_cast<int>(slot.index);
  return -1;
}

int RingFiles::Add(const std::shared_ptr<Store>& store) {
  // An entry that waits for the kernel may name a slot that was emptied since: that must not lead to another file.
  if (!free_.empty() && ring_.Pending() > 0) ring_.Submit();
  if (free_.empty() || ring_.Pending() > 0) return -1;
  Slot slot{free_.back(), 0, store};
  store->AddOpenedEvent(wake_);  // before its file is looked at: no change is missed
  if (!Put(slot, *store)) {
    store->RemoveOpenedEvent(wake_);
    return -1;
  }
  free_.pop_back();
  slots_.emplace(store->id(), slot);
  return static_cast<int>(slot.index);
}

bool RingFiles::Put(Slot& slot, const Store& store) {
  const uint32_t opened = store.opened();
  const int fd = store.fd();
  if (ring_.UpdateFiles(slot.index, std::span(&fd, 1)) != 1) return false;
  slot.opened = opened;
  return true;
}

void RingFiles::Refresh() {
  for (auto& [id, slot] : slots_)
    if (const auto store = slot.store.lock(); store && store->opened() != slot.opened) Put(slot, *store);
}

void RingFiles::Empty(const Slot& slot) {
  const int none = -1;
  if (const auto store = slot.store.lock()) store->RemoveOpenedEvent(wake_);
  // Where that fails the file stays, and with it the slot.
  if (ring_.UpdateFiles(slot.index, std::span(&none, 1)) == 1) free_.push_back(slot.index);
}

void RingFiles::Sweep() {
  std::erase_if(slots_, [this](const auto& entry) {
    if (!entry.second.store.expired()) return false;
    Empty(entry.second);
    return true;
  });
}

void RingFiles::Clear() {
  for (const auto& [id, slot] : slots_) Empty(slot);
  slots_.clear();
}

}  // namespace vioctl::storage
