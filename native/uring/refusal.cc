#include "uring/refusal.h"

#include <atomic>
#include <mutex>

#include "uring/ring.h"

namespace vioctl::uring {
namespace {

std::mutex mutex;
std::optional<Refusal> first;
bool tried = false;
std::atomic<int> buffers{0};

constexpr uint32_t kEntries = 4;

}  // namespace

void NoteRefusal(const SysError& error) {
  std::lock_guard lock(mutex);
  if (!first) first = Refusal{error.err(), error.call()};
}

void NoteBufferRefusal(int err) {
  int none = 0;
  buffers.compare_exchange_strong(none, err);
}

int BufferRefusal() { return buffers.load(); }

std::optional<Refusal> FirstRefusal() {
  std::lock_guard lock(mutex);
  if (std::exchange(tried, true) || first) return first;
  try {
    const Ring ring({.entries = kEntries});
    if (const int err = ring.Probe(); err < 0) first = Refusal{-err, "io_uring_enter"};
  } catch (const SysError& error) {
    first = Refusal{error.err(), error.call()};
  }
  return first;
}

}  // namespace vioctl::uring
