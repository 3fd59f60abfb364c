// What all sources have in common: which failures are latched, and that durable writes share syncs.
#include "storage/store.h"

#include <cerrno>

namespace vioctl::storage {

int Store::Write(const iovec* from, int count, uint64_t offset, bool durable) {
  if (readonly_) return EROFS;
  if (!durable) return DoWrite(from, count, offset);
  if (const int err = sync_error()) return err;
  if (const int err = DoWrite(from, count, offset)) return err;
  // Not RWF_DSYNC: of several that fail together the kernel tells one alone (durability.h), and a failure of the write
  // itself (a full disk) would look like a lost write-back.
  return Flush();
}

int Store::Flush() {
  if (readonly_ || !Waits()) return sync_error();
  return durability_->Sync([this] { return DoSync(); });
}

int Store::Zero(uint64_t offset, uint64_t length, bool deallocate) {
  if (readonly_) return EROFS;
  const int err = DoZero(offset, length, deallocate);
  if (MayLoseData(err)) durability_->Fail(err);
  return err;
}

int Store::Discard(uint64_t offset, uint64_t length) {
  if (readonly_) return EROFS;
  const int err = DoDiscard(offset, length);
  if (MayLoseData(err)) durability_->Fail(err);
  return err;
}

}  // namespace vioctl::storage
