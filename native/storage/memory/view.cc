#include "storage/memory/view.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "os/mapping.h"

namespace vioctl::storage {
namespace {

constexpr size_t kSmallestPage = 4096;  // of any kernel

}  // namespace

FileView::FileView(int fd, uint64_t size)
    : map_(fd, os::RoundUp(std::max(size + size / 2, size + kRoom), kChunk), false, 0),
      states_(std::make_unique<std::atomic<uint8_t>[]>(map_.size() / kChunk)) {}

const std::byte* FileView::At(uint64_t offset, uint64_t length, uint64_t size) {
  const uint64_t all = std::min<uint64_t>(size, map_.size() / kChunk * kChunk);
  if (length == 0 || offset >= all || length > all - offset || broken()) return nullptr;
  for (uint64_t chunk = offset / kChunk; chunk <= (offset + length - 1) / kChunk; chunk++)
    if (states_[chunk].load(std::memory_order_relaxed) != kThere && !Look(chunk, all)) return nullptr;
  // Whoever looks at it next may be the kernel, which has no guard against a file that was cut meanwhile.
  const auto* at = reinterpret_cast<const std::byte*>(map_.get()) + offset;
  const uint64_t page = os::PageSize();
  const auto touch = [at](uint64_t i) { (void)*static_cast<const volatile std::byte*>(at + i); };
  for (uint64_t i = 0; i < length; i += page) touch(i);
  touch(length - 1);
  return broken() ? nullptr : at;
}

// Whether all pages of a chunk are there.
bool FileView::Look(uint64_t chunk, uint64_t size) {
  const uint8_t rested = states_[chunk].load(std::memory_order_relaxed);
  if (rested > 0 && rested < kRest) {
    states_[chunk].store(rested + 1, std::memory_order_relaxed);
    return false;
  }
  states_[chunk].store(1, std::memory_order_relaxed);
  const uint64_t begin = chunk * kChunk, bytes = std::min(kChunk, os::RoundUp(size, os::PageSize()) - begin);
  unsigned char there[kChunk / kSmallestPage];
  memset(there, 1, sizeof there);  // the kernel tells of as many as there are
  if (::mincore(map_.get() + begin, bytes, there) != 0) return false;
  for (const unsigned char one : there)
    if ((one & 1) == 0) return false;
  states_[chunk].store(kThere, std::memory_order_relaxed);
  return true;
}

void FileView::Forget(uint64_t offset, uint64_t length) {
  const uint64_t count = map_.size() / kChunk, end = offset + std::min(length, UINT64_MAX - offset);
  for (uint64_t chunk = offset / kChunk; chunk < count && chunk * kChunk < end; chunk++)
    states_[chunk].store(0, std::memory_order_relaxed);
}

}  // namespace vioctl::storage
