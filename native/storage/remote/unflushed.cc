#include "storage/remote/unflushed.h"

#include "storage/remote/parts.h"

namespace vioctl::storage {

void Unflushed::Add(Op op, bool deallocate, bool durable, uint64_t offset, uint64_t length, const iovec* parts,
                    uint64_t skip) {
  if (durable && entries_.empty()) return;
  Entry entry{op, deallocate, durable, offset, length, last_ + 1, {}};
  if (op == Op::kWrite) {
    entry.data.resize(length);
    CopyFrom(parts, skip, entry.data.data(), length);
  }
  bytes_ += kEntry + entry.data.size();
  entries_.push_back(std::move(entry));
  last_++;
}

void Unflushed::Flushed(uint64_t mark) {
  while (!entries_.empty() && entries_.front().number <= mark) {
    bytes_ -= kEntry + entries_.front().data.size();
    entries_.pop_front();
  }
}

}  // namespace vioctl::storage
