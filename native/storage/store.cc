// What all sources have in common: which failures are latched, and that durable writes share syncs.
#include "storage/store.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "os/eventfd.h"

namespace vioctl::storage {
namespace {

constexpr size_t kCompared = 256 << 10;  // bytes that are compared at a time

}  // namespace

uint64_t Store::NextId() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

int Store::Compare(const iovec* with, int count, uint64_t offset) {
  std::vector<std::byte> found;
  for (int i = 0; i < count; i++) {
    const auto* wanted = static_cast<const std::byte*>(with[i].iov_base);
    for (size_t left = with[i].iov_len; left > 0;) {
      const size_t part = std::min(left, kCompared);
      if (found.size() < part) found.resize(part);
      if (const int err = Read(found.data(), part, offset)) return err;
      if (memcmp(found.data(), wanted, part) != 0) return kDiffers;
      wanted += part;
      offset += part;
      left -= part;
    }
  }
  return 0;
}

int Store::Write(const iovec* from, int count, uint64_t offset, bool durable) {
  if (readonly_) return EROFS;
  if (durable)
    if (const int err = sync_error()) return err;
  const int err = DoWrite(from, count, offset);
  Failed(err);
  if (err != 0 || !durable) return err;
  // Not RWF_DSYNC: of several that fail together the kernel tells one alone (durability.h), and a failure of the write
  // itself (a full disk) would look like a lost write-back.
  return Flush();
}

int Store::Flush() {
  if (!Syncs()) return sync_error();
  return durability_->Sync([this] { return SyncNow(); }, [this](int err) { return Loses(err); });
}

int Store::SyncNow() {
  const int err = DoSync();
  Failed(err);
  return err;
}

int Store::Zero(uint64_t offset, uint64_t length, bool deallocate) {
  if (readonly_) return EROFS;
  const int err = DoZero(offset, length, deallocate);
  Failed(err);
  if (!remote() && MayLoseData(err)) durability_->Fail(err);
  return err;
}

int Store::Discard(uint64_t offset, uint64_t length) {
  if (readonly_) return EROFS;
  const int err = DoDiscard(offset, length);
  Failed(err);
  if (!remote() && MayLoseData(err)) durability_->Fail(err);
  return err;
}

void Store::AddOpenedEvent(int eventfd) {
  std::lock_guard guard(opened_lock_);
  opened_events_.push_back(eventfd);
}

void Store::RemoveOpenedEvent(int eventfd) {
  std::lock_guard guard(opened_lock_);
  std::erase(opened_events_, eventfd);
}

void Store::Opened() {
  opened_.fetch_add(1, std::memory_order_release);
  std::lock_guard guard(opened_lock_);
  for (const int event : opened_events_) os::SignalEventfd(event);
}

}  // namespace vioctl::storage
