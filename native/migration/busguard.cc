#include "migration/busguard.h"

#include <sys/mman.h>

#include <csignal>
#include <cstdint>
#include <mutex>

namespace vioctl::migration {
namespace {

struct Range {
  uintptr_t from, to;
};
constexpr int kRanges = 8;
thread_local Range t_ranges[kRanges] = {};
thread_local volatile sig_atomic_t t_hit = 0;
struct sigaction g_before;

// A fault in the watched range: zeros from the faulting page to the end of the mapping, and on with the read.
void OnBusError(int signal, siginfo_t* info, void* context) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Range& range : t_ranges) {
    if (at < range.from || at >= range.to) continue;
    const uintptr_t page = at & ~uintptr_t{0xfff};
    void* zeros =
        mmap(reinterpret_cast<void*>(page), range.to - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) break;
    t_hit = 1;
    return;
  }
  if (g_before.sa_flags & SA_SIGINFO) {
    g_before.sa_sigaction(signal, info, context);
  } else if (g_before.sa_handler != SIG_DFL && g_before.sa_handler != SIG_IGN) {
    g_before.sa_handler(signal);
  } else {
    ::signal(SIGBUS, SIG_DFL);  // the access is repeated and ends the process, as without us
  }
}

}  // namespace

void BusGuard::Watch(void* at, size_t size) {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &g_before);
  });
  const uintptr_t from = reinterpret_cast<uintptr_t>(at);
  for (Range& range : t_ranges) {
    if (range.to != 0) continue;
    range = Range{from, from + ((size + 0xfff) & ~size_t{0xfff})};
    at_ = at;
    return;
  }
}

void BusGuard::Reset() {
  for (Range& range : t_ranges)
    if (at_ && range.from == reinterpret_cast<uintptr_t>(at_)) range = Range{};
  at_ = nullptr;
}

bool TookBusError() {
  const bool hit = t_hit != 0;
  t_hit = 0;
  return hit;
}

}  // namespace vioctl::migration
