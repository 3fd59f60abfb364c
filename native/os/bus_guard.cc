#include "os/bus_guard.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <vector>

#include "common/error.h"

namespace vioctl::os {

// What the signal handler knows of one guard. It may run while another thread changes a slot: `version` is odd during a
// change, and differs behind one. Its own slot is stable, because whoever accesses a mapping keeps the guard.
struct BusGuard::Slot {
  std::atomic<uint32_t> version{0};
  std::atomic<uintptr_t> begin{0}, end{0};  // both 0: free
  std::atomic<uintptr_t> page{1};
  std::atomic<int> protection{0};
  std::atomic<bool> broken{false};

  void Set(uintptr_t from, uintptr_t to, size_t unit, int access) {
    version.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    begin.store(from, std::memory_order_relaxed);
    end.store(to, std::memory_order_relaxed);
    page.store(unit, std::memory_order_relaxed);
    protection.store(access, std::memory_order_relaxed);
    broken.store(false, std::memory_order_relaxed);
    version.fetch_add(1, std::memory_order_release);
  }

  // Whether `at` lies in the range; puts zeros from its page on. mmap is a bare system call: safe in a handler.
  bool Mend(uintptr_t at) {
    const uint32_t before = version.load(std::memory_order_acquire);
    const uintptr_t from = begin.load(std::memory_order_relaxed), to = end.load(std::memory_order_relaxed);
    const uintptr_t unit = page.load(std::memory_order_relaxed);
    const int access = protection.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 != 0 || version.load(std::memory_order_relaxed) != before) return false;
    if (at < from || at >= to) return false;
    // All pages behind the lost one are lost too. `from` is aligned to the kernel's pages, perhaps not to forced ones.
    const uintptr_t first = std::max(from, at & ~(unit - 1));
    // Before the zeroes are there: whoever has read some finds it (Broken).
    broken.store(true, std::memory_order_release);
    void* zeros =
        ::mmap(reinterpret_cast<void*>(first), to - first, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    return zeros != MAP_FAILED;
  }

  // Of an access that has ended. `forget`: and the next one is told of new losses only.
  bool Broken(bool forget) {
    std::atomic_thread_fence(std::memory_order_acquire);
    return forget ? broken.exchange(false, std::memory_order_acq_rel) : broken.load(std::memory_order_acquire);
  }
};

namespace {

constexpr size_t kHugePage = 2 << 20;  // the smallest that any kernel maps a file with
constexpr size_t kChunk = 64;

// Slots are never freed: the handler walks this list at any time.
struct Chunk {
  std::array<BusGuard::Slot, kChunk> slots;
  std::atomic<Chunk*> next{nullptr};
};

struct Registry {
  std::mutex lock;
  Chunk first;
  Chunk* last = &first;
  std::vector<BusGuard::Slot*> free;
  size_t total = 0;

  Registry() { Offer(first); }
  void Offer(Chunk& chunk) {
    free.reserve(total += kChunk);  // room for every slot: giving one back cannot fail
    for (auto slot = chunk.slots.rbegin(); slot != chunk.slots.rend(); ++slot) free.push_back(&*slot);
  }
  BusGuard::Slot* Take() {
    if (free.empty()) {
      auto* chunk = new Chunk;
      Offer(*chunk);
      last->next.store(chunk, std::memory_order_release);
      last = chunk;
    }
    BusGuard::Slot* slot = free.back();
    free.pop_back();
    return slot;
  }
};

// Written once, before the handler is installed; never destroyed, because threads may outlive exit().
Registry* g_registry;
struct sigaction g_previous_bus;

void Previous(int signal, siginfo_t* info, void* context) {
  if (g_previous_bus.sa_flags & SA_SIGINFO) return g_previous_bus.sa_sigaction(signal, info, context);
  if (g_previous_bus.sa_handler == SIG_IGN && info->si_code <= 0) return;
  if (g_previous_bus.sa_handler != SIG_DFL && g_previous_bus.sa_handler != SIG_IGN)
    return g_previous_bus.sa_handler(signal);
  ::signal(SIGBUS, SIG_DFL);
  // A faulting access repeats and ends the process; a signal that somebody sent has to be sent again.
  if (info->si_code <= 0) ::raise(signal);
}

void OnBusError(int signal, siginfo_t* info, void* context) {
  // Only a fault has an address: of a file's end, or of memory that failed (machine check).
  if (info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR) {
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    const int saved = errno;
    for (Chunk* chunk = &g_registry->first; chunk; chunk = chunk->next.load(std::memory_order_acquire)) {
      for (BusGuard::Slot& slot : chunk->slots) {
        if (!slot.Mend(at)) continue;
        errno = saved;
        return;
      }
    }
    errno = saved;
  }
  Previous(signal, info, context);
}

// At the first guard, so that a process without any keeps its disposition.
Registry& Installed() {
  static const bool once = [] {
    g_registry = new Registry;
    struct sigaction action {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    Check(::sigaction(SIGBUS, &action, &g_previous_bus), "sigaction", "SIGBUS");
    return true;
  }();
  (void)once;
  return *g_registry;
}

}  // namespace

BusGuard::BusGuard(void* at, size_t size, int protection, size_t page) {
  Registry& registry = Installed();
  const std::lock_guard lock(registry.lock);
  slot_ = registry.Take();
  const auto begin = reinterpret_cast<uintptr_t>(at);
  slot_->Set(begin, begin + size, page, protection);
}

void BusGuard::Reset() noexcept {
  if (!slot_) return;
  const std::lock_guard lock(g_registry->lock);
  slot_->Set(0, 0, 1, 0);
  g_registry->free.push_back(std::exchange(slot_, nullptr));
}

bool BusGuard::broken() const noexcept { return slot_ && slot_->Broken(false); }

bool BusGuard::TakeBroken() noexcept { return slot_ && slot_->Broken(true); }

void Touch(const iovec* parts, int count) noexcept {
  const size_t page = PageSize();
  for (int i = 0; i < count; i++) {
    const auto* bytes = static_cast<const volatile uint8_t*>(parts[i].iov_base);
    for (size_t at = 0; at < parts[i].iov_len; at += page) (void)bytes[at];
    if (parts[i].iov_len > 0) (void)bytes[parts[i].iov_len - 1];
  }
}

GuardedMapping::GuardedMapping(int fd, size_t size, bool writable, off_t offset) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const size_t page = PageSizeOf(fd);
  // Address and offset in step: the kernel then maps hugepages whole, and small ones by the dozen at a fault.
  map_ = size < kHugePage ? Mapping::Map(fd, RoundUp(size, page), protection, MAP_SHARED, offset)
                          : Mapping::MapAligned(fd, RoundUp(size, page), protection, std::max(kHugePage, page),
                                                static_cast<uint64_t>(offset), offset);
  guard_ = BusGuard(map_.get(), map_.size(), protection, page);
}

}  // namespace vioctl::os
