#include "storage/ring/buffers.h"

#include <cerrno>

#include "common/error.h"
#include "uring/refusal.h"

namespace vioctl::storage {

// Divides memory among the classes.
void RingBuffers::Lay(int shrink) {
  size_t bytes = 0;
  for (const Class& one : kClasses) bytes += static_cast<size_t>(one.size) * (one.count >> shrink);
  memory_ = Mapping::Map(-1, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  // A child between fork and exec would have it copied, since it is pinned.
  ::madvise(memory_.get(), bytes, MADV_DONTFORK);
  auto* at = static_cast<uint8_t*>(memory_.get());
  for (size_t i = 0; i < std::size(kClasses); i++) {
    free_[i].clear();
    for (uint32_t n = kClasses[i].count >> shrink; n > 0; n--, at += kClasses[i].size) free_[i].push_back(at);
    ends_[i] = at;
  }
}

void RingBuffers::Register(uring::Ring& ring) {
  tried_ = true;
  int err = 0;
  for (int shrink = 0; shrink < kShrinks && !registered_; shrink++) {
    try {
      if (out_ == 0) Lay(shrink);  // else somebody uses what an earlier ring had
    } catch (const SysError& error) {
      err = error.err();
      break;
    }
    const iovec whole{memory_.get(), memory_.size()};
    err = -ring.RegisterBuffers({&whole, 1});
    registered_ = err == 0;
    if (err != ENOMEM || out_ > 0) break;
  }
  if (registered_) return;
  uring::NoteBufferRefusal(err);
  if (out_ > 0) return;
  memory_.Reset();
  for (auto& list : free_) list.clear();
}

bool RingBuffers::Holds(const void* at) const {
  const auto* byte = static_cast<const uint8_t*>(at);
  const auto* start = static_cast<const uint8_t*>(memory_.get());
  return start && byte >= start && byte < start + memory_.size();
}

uint8_t* RingBuffers::Take(uint32_t size) {
  if (!registered_) return nullptr;
  for (size_t i = 0; i < std::size(kClasses); i++) {
    if (kClasses[i].size < size) continue;
    if (free_[i].empty()) return nullptr;
    uint8_t* buffer = free_[i].back();
    free_[i].pop_back();
    out_++;
    return buffer;
  }
  return nullptr;
}

bool RingBuffers::Give(uint8_t* buffer) {
  if (!Holds(buffer)) return false;
  size_t i = 0;
  while (buffer >= ends_[i]) i++;
  free_[i].push_back(buffer);
  out_--;
  return true;
}

}  // namespace vioctl::storage
