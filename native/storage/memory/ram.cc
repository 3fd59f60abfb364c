#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "os/mapping.h"
#include "storage/store.h"

namespace vioctl::storage {
namespace {

class Ram final : public Store {
 public:
  explicit Ram(uint64_t size)
      : map_(Mapping::Map(-1, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)) {
    // A hint. Blocks at random places cost a look into the page table each; with hugepages, that stays in the cache.
    ::madvise(map_.get(), size, MADV_HUGEPAGE);
    size_.store(size, std::memory_order_relaxed);
  }

  const std::byte* View(uint64_t offset, uint64_t) override { return memory() + offset; }
  std::byte* Memory(uint64_t offset, uint64_t) override { return memory() + offset; }
  bool Stays() const override { return true; }
  bool Waits() const override { return false; }

  int DoRead(const iovec* to, int count, uint64_t offset, bool) override {
    const std::byte* from = memory() + offset;
    for (int i = 0; i < count; from += to[i++].iov_len) memcpy(to[i].iov_base, from, to[i].iov_len);
    return 0;
  }

  int DoWrite(const iovec* from, int count, uint64_t offset) override {
    std::byte* to = memory() + offset;
    for (int i = 0; i < count; to += from[i++].iov_len) memcpy(to, from[i].iov_base, from[i].iov_len);
    return 0;
  }

  int DoSync() override { return 0; }

  int DoZero(uint64_t offset, uint64_t length, bool) override {
    // Whole pages go back to the system and come again as zeroes; the ends are written.
    const uint64_t page = os::PageSize();
    const uint64_t end = offset + length, head = std::min(end, os::RoundUp(offset, page));
    const uint64_t tail = std::max(head, os::RoundDown(end, page));
    memset(memory() + offset, 0, head - offset);
    if (tail > head && ::madvise(memory() + head, tail - head, MADV_DONTNEED) != 0) return errno;
    memset(memory() + tail, 0, end - tail);
    return 0;
  }

  int DoDiscard(uint64_t offset, uint64_t length) override { return DoZero(offset, length, true); }

 private:
  std::byte* memory() const { return static_cast<std::byte*>(map_.get()); }

  Mapping map_;
};

}  // namespace

std::shared_ptr<Store> OpenRam(uint64_t size) { return std::make_shared<Ram>(size); }

}  // namespace vioctl::storage
