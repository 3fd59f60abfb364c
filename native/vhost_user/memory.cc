#include "vhost_user/memory.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <mutex>

#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

// Ranges that the signal handler knows. A slot is taken under the lock and published by its `begin`.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> broken{false};
};
constexpr int kSlots = 4096;
Slot slots[kSlots];
std::mutex slots_lock;
struct sigaction previous;
size_t page_size;

void OnSigbus(int signal, siginfo_t* info, void* context) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    const uintptr_t end = slot.end.load(std::memory_order_relaxed);
    if (begin == 0 || at < begin || at >= end) continue;
    // mmap is a bare system call: safe here. All pages behind the lost one are lost too.
    const uintptr_t page = at & ~(page_size - 1);
    const int saved = errno;
    void* got = ::mmap(reinterpret_cast<void*>(page), end - page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    errno = saved;
    if (got == MAP_FAILED) break;
    slot.broken.store(true, std::memory_order_relaxed);
    return;
  }
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  ::signal(SIGBUS, SIG_DFL);  // the access repeats and ends the process
}

// Installed at the first guarded mapping, so that a process without any keeps its disposition.
void Install() {
  page_size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = OnSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  Check(::sigaction(SIGBUS, &action, &previous), "sigaction", "SIGBUS");
}

}  // namespace

Guarded::Guarded(int fd, size_t size, bool writable, off_t offset)
    : map_(Mapping::Map(fd, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, offset)) {
  static std::once_flag once;
  std::call_once(once, Install);
  std::lock_guard lock(slots_lock);
  for (int i = 0; i < kSlots; i++) {
    Slot& slot = slots[i];
    if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
    const auto begin = reinterpret_cast<uintptr_t>(map_.get());
    slot.broken.store(false, std::memory_order_relaxed);
    slot.end.store(begin + size, std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_release);
    slot_ = i;
    return;
  }
  throw SysError(ENOMEM, "mmap", "guarded mappings");
}

Guarded::~Guarded() {
  if (slot_ < 0) return;
  map_.Reset();  // before the slot: the handler must know the range as long as it is mapped
  std::lock_guard lock(slots_lock);
  slots[slot_].begin.store(0, std::memory_order_release);
}

Guarded::Guarded(Guarded&& other) noexcept : map_(std::move(other.map_)), slot_(std::exchange(other.slot_, -1)) {}

bool Guarded::broken() const { return slot_ >= 0 && slots[slot_].broken.load(std::memory_order_relaxed); }

GuestMemory::GuestMemory(const std::vector<Region>& regions, const std::vector<int>& fds) {
  if (regions.size() != fds.size()) throw SysError(EINVAL, "mmap", "one descriptor per region");
  parts_.reserve(regions.size());
  for (size_t i = 0; i < regions.size(); i++) {
    const Region& region = regions[i];
    struct stat st;
    Check(::fstat(fds[i], &st), "fstat");
    // A file on hugetlbfs reports its page size here, and mmap wants offset and size in it.
    const auto page = static_cast<uint64_t>(std::max<long>(st.st_blksize, ::sysconf(_SC_PAGESIZE)));
    const bool huge = page > 65536;
    const uint64_t unit = huge ? page : static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    const uint64_t start = region.offset / unit * unit;
    const uint64_t skip = region.offset - start;
    if (region.size == 0 || region.size > (uint64_t{1} << 46) || region.offset > (uint64_t{1} << 62))
      throw SysError(EINVAL, "mmap", "memory region");
    const uint64_t size = (region.size + skip + unit - 1) / unit * unit;
    Guarded map(fds[i], size, true, static_cast<off_t>(start));
    uint8_t* base = map.get() + skip;
    parts_.push_back({region, std::move(map), base});
  }
}

uint8_t* GuestMemory::Physical(uint64_t address, uint64_t size) const {
  for (const Part& part : parts_) {
    const uint64_t offset = address - part.region.gpa;
    if (address >= part.region.gpa && offset < part.region.size && size <= part.region.size - offset)
      return part.base + offset;
  }
  return nullptr;
}

uint8_t* GuestMemory::Virtual(uint64_t address, uint64_t size) const {
  for (const Part& part : parts_) {
    const uint64_t offset = address - part.region.uva;
    if (address >= part.region.uva && offset < part.region.size && size <= part.region.size - offset)
      return part.base + offset;
  }
  return nullptr;
}

uint8_t* GuestMemory::Run(uint64_t address, uint64_t* size) const {
  for (const Part& part : parts_) {
    const uint64_t offset = address - part.region.gpa;
    if (address < part.region.gpa || offset >= part.region.size) continue;
    *size = std::min(*size, part.region.size - offset);
    return part.base + offset;
  }
  *size = 0;
  return nullptr;
}

bool GuestMemory::broken() const {
  for (const Part& part : parts_)
    if (part.map.broken()) return true;
  return false;
}

}  // namespace vioctl::vhost_user
