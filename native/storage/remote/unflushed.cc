#include "storage/remote/unflushed.h"

namespace vioctl::storage {

void Unflushed::Add(Op op, bool deallocate, uint64_t offset, uint64_t length, const std::byte* data) {
  Entry entry{op, deallocate, offset, length, last_ + 1, {}};
  if (data) entry.data.assign(data, data + length);
  entries_.push_back(std::move(entry));
  last_++;
  bytes_ += kEntry + (data ? length : 0);
}

void Unflushed::Flushed(uint64_t mark) {
  while (!entries_.empty() && entries_.front().number <= mark) {
    bytes_ -= kEntry + entries_.front().data.size();
    entries_.pop_front();
  }
}

}  // namespace vioctl::storage
