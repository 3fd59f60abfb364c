#include "storage/memory/view.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "os/mapping.h"

namespace vioctl::storage {
namespace {

constexpr size_t kSmallestPage = 4096;  // of any kernel
constexpr uint64_t kHugePage = 2 << 20;
static_assert(sizeof(std::atomic<uint8_t>) == 1 && std::atomic<uint8_t>::is_always_lock_free);

}  // namespace

FileView::FileView(int fd, uint64_t size)
    : map_(fd, os::RoundUp(std::max(size + size / 2, size + kRoom), kChunk), false, 0),
      kernel_(Mapping::MapAligned(fd, map_.size(), PROT_READ, kHugePage, 0)),
      states_(Mapping::Map(-1, os::RoundUp(map_.size() / kChunk, os::PageSize()), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)) {}

bool FileView::Has(uint64_t offset, uint64_t length, uint64_t size) {
  const uint64_t all = std::min<uint64_t>(size, map_.size() / kChunk * kChunk);
  if (length == 0 || offset >= all || length > all - offset || broken()) return false;
  for (uint64_t chunk = offset / kChunk; chunk <= (offset + length - 1) / kChunk; chunk++)
    if (State(chunk).load(std::memory_order_relaxed) != kThere && !Look(chunk, all)) return false;
  // A file that was cut meanwhile is noticed here, as a rule: whoever reads it then is told so, and nobody hangs up.
  // What is cut goes from the end on, so the last chunk that was there tells for all of them, out of the processor's
  // cache.
  uint64_t top = top_.load(std::memory_order_relaxed);
  if (const uint64_t own = (offset + length - 1) / kChunk + 1; own > top)
    top_.store(top = own, std::memory_order_relaxed);
  (void)*static_cast<const volatile std::byte*>(guarded() + std::min(top * kChunk, all) - 1);
  return !broken();
}

// Whether all pages of a chunk are there.
bool FileView::Look(uint64_t chunk, uint64_t size) {
  std::atomic<uint8_t>& state = State(chunk);
  const uint8_t rested = state.load(std::memory_order_relaxed);
  if (rested > 0 && rested < kRest) {
    state.store(rested + 1, std::memory_order_relaxed);
    return false;
  }
  const uint64_t forgotten = forgotten_.load(std::memory_order_seq_cst);
  state.store(1, std::memory_order_relaxed);
  const uint64_t begin = chunk * kChunk, bytes = std::min(kChunk, os::RoundUp(size, os::PageSize()) - begin);
  unsigned char there[kChunk / kSmallestPage];
  memset(there, 1, sizeof there);  // the kernel tells of as many as there are
  if (::mincore(map_.get() + begin, bytes, there) != 0) return false;
  for (const unsigned char one : there)
    if ((one & 1) == 0) return false;
  state.store(kThere, std::memory_order_seq_cst);
  if (forgotten_.load(std::memory_order_seq_cst) == forgotten) return true;
  // It may have become a hole meanwhile. Either this is seen here, or Forget() takes back what was stored.
  state.store(0, std::memory_order_seq_cst);
  return false;
}

void FileView::Forget(uint64_t offset, uint64_t length) {
  forgotten_.fetch_add(1, std::memory_order_seq_cst);
  const uint64_t count = map_.size() / kChunk, end = offset + std::min(length, UINT64_MAX - offset);
  const uint64_t to = std::min(count, end / kChunk + (end % kChunk != 0));
  uint64_t from = std::min(to, offset / kChunk);
  if (const uint64_t top = top_.load(std::memory_order_relaxed); from < top && top <= to)
    top_.store(0, std::memory_order_relaxed);
  // Pages of states are given back whole: most of a large file may never have been read.
  const uint64_t first = os::RoundUp(from, os::PageSize()), last = os::RoundDown(to, os::PageSize());
  if (first < last && ::madvise(&State(first), last - first, MADV_DONTNEED) == 0) {
    Clear(from, first);
    from = last;
  }
  Clear(from, to);
}

void FileView::Clear(uint64_t from, uint64_t to) const {
  for (uint64_t chunk = from; chunk < to; chunk++) State(chunk).store(0, std::memory_order_seq_cst);
}

}  // namespace vioctl::storage
