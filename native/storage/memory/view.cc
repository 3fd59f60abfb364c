#include "storage/memory/view.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/error.h"
#include "os/clock.h"
#include "os/mapping.h"

namespace vioctl::storage {
namespace {

constexpr size_t kSmallestPage = 4096;  // of any kernel
constexpr uint64_t kHugePage = 2 << 20;
// That a page which was there is there: it was just used, so that the kernel takes others first.
constexpr uint32_t kFreshMs = 500;
constexpr uint32_t kKnownMs = 10'000;      // that a chunk is worth a look after it was there
constexpr uint32_t kLasting = UINT32_MAX;  // the state of a chunk that stays
// Of all views together. A view takes three mappings, of which a process has 65,530 unless somebody has changed that.
// The page tables of its file take up to 4 ‰ of its bytes, and the kernel does not take them back.
constexpr uint64_t kMostViews = 8192, kMostBytes = 64ULL << 30;
static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

std::atomic<uint64_t> g_views{0}, g_bytes{0};

}  // namespace

FileView::Share::Share(uint64_t bytes) : bytes_(bytes) {
  const bool fits = g_bytes.fetch_add(bytes) + bytes <= std::min(os::MemorySize(), kMostBytes);
  if (g_views.fetch_add(1) < kMostViews && fits) return;
  g_views.fetch_sub(1);
  g_bytes.fetch_sub(bytes);
  throw SysError(ENOMEM, "mmap");
}

FileView::Share::~Share() {
  g_views.fetch_sub(1);
  g_bytes.fetch_sub(bytes_);
}

FileView::FileView(int fd, uint64_t size, bool stays)
    : stays_(stays),
      mapped_(os::RoundUp(std::max(size + size / 2, size + kRoom), kChunk)),
      share_(stays ? 0 : mapped_),  // memory has no room for more than its own size
      map_(fd, mapped_, false, 0),
      kernel_(Mapping::MapAligned(fd, map_.size(), PROT_READ, kHugePage, 0)),
      states_(Mapping::Map(-1, os::RoundUp(mapped_ / kChunk * sizeof(State), os::PageSize()), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)) {}

// The state of a chunk that is there now: kLasting, or the time in ms, in which small numbers stand for calls.
uint32_t FileView::Now() const {
  return stays_ ? kLasting : std::clamp<uint32_t>(static_cast<uint32_t>(os::RecentMs()), kRest + 1, kLasting - 1);
}

bool FileView::Fresh(uint32_t state, uint32_t now) {
  return state > kRest && (state == kLasting || now - state < kFreshMs);
}

bool FileView::Has(uint64_t offset, uint64_t length, uint64_t size) {
  const uint64_t all = std::min<uint64_t>(size, mapped_);
  if (length == 0 || offset >= all || length > all - offset || broken()) return false;
  const uint32_t now = Now();
  const uint64_t last = (offset + length - 1) / kChunk;
  bool there = true;
  for (uint64_t chunk = offset / kChunk; chunk <= last; chunk++)
    if (!Fresh(StateOf(chunk).load(std::memory_order_relaxed), now) && !Look(chunk, all, now)) there = false;
  if (!there) return false;
  // A file that was cut meanwhile is noticed here, as a rule: whoever reads it then is told so, and nobody hangs up.
  // What is cut goes from the end on, so the last chunk that was there tells for all of them, out of the processor's
  // cache.
  uint64_t top = top_.load(std::memory_order_relaxed);
  if (last >= top || !Fresh(StateOf(top - 1).load(std::memory_order_relaxed), now))
    top_.store(top = last + 1, std::memory_order_relaxed);
  (void)*static_cast<const volatile std::byte*>(guarded() + std::min(top * kChunk, all) - 1);
  return !broken();
}

// Whether all pages of a chunk are there.
bool FileView::Look(uint64_t chunk, uint64_t size, uint32_t now) {
  State& state = StateOf(chunk);
  uint32_t rested = state.load(std::memory_order_relaxed);
  // A file that is read once should be read: the kernel reads ahead of that, but of a mapping only at a fault.
  if (!stays_ && (rested == 0 || (rested > kRest && now - rested >= kKnownMs))) rested = kRest / 2;
  if (rested > 0 && rested < kRest) {
    state.store(rested + 1, std::memory_order_relaxed);
    return false;
  }
  const uint64_t forgotten = forgotten_.load(std::memory_order_seq_cst);
  state.store(1, std::memory_order_relaxed);
  const uint64_t begin = chunk * kChunk, bytes = std::min(kChunk, os::RoundUp(size, os::PageSize()) - begin);
  unsigned char there[kChunk / kSmallestPage];
  memset(there, 1, sizeof there);  // the kernel tells of as many as there are
  if (::mincore(static_cast<std::byte*>(kernel_.get()) + begin, bytes, there) != 0) return false;
  for (const unsigned char one : there)
    if ((one & 1) == 0) return false;
  state.store(now, std::memory_order_seq_cst);
  if (forgotten_.load(std::memory_order_seq_cst) == forgotten) return true;
  // It may have become a hole meanwhile. Either this is seen here, or Forget() takes back what was stored.
  state.store(0, std::memory_order_seq_cst);
  return false;
}

void FileView::Forget(uint64_t offset, uint64_t length) {
  forgotten_.fetch_add(1, std::memory_order_seq_cst);
  const uint64_t count = mapped_ / kChunk, end = offset + std::min(length, UINT64_MAX - offset);
  const uint64_t to = std::min(count, end / kChunk + (end % kChunk != 0));
  uint64_t from = std::min(to, offset / kChunk);
  if (const uint64_t top = top_.load(std::memory_order_relaxed); from < top && top <= to)
    top_.store(0, std::memory_order_relaxed);
  // Pages of states are given back whole: most of a large file may never have been read.
  const uint64_t unit = os::PageSize() / sizeof(State);
  const uint64_t first = os::RoundUp(from, unit), last = os::RoundDown(to, unit);
  if (first < last && ::madvise(&StateOf(first), (last - first) * sizeof(State), MADV_DONTNEED) == 0) {
    Clear(from, first);
    from = last;
  }
  Clear(from, to);
}

void FileView::Clear(uint64_t from, uint64_t to) const {
  for (uint64_t chunk = from; chunk < to; chunk++) StateOf(chunk).store(0, std::memory_order_seq_cst);
}

}  // namespace vioctl::storage
