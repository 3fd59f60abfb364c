#include "nvme/host/journal.h"

#include <cstring>
#include <vector>

#include "nvme/host/queue.h"

namespace vioctl::nvme::host {

void Journal::Add(uint64_t offset, uint64_t length, const iovec* parts, int count, uint64_t skip) {
  Entry entry{++last_, offset, length, nullptr};
  if (parts) {
    entry.data.reset(new uint8_t[length]);
    std::vector<iovec> slices;
    Slice(parts, count, skip, length, slices);
    uint8_t* to = entry.data.get();
    for (const iovec& slice : slices) {
      memcpy(to, slice.iov_base, slice.iov_len);
      to += slice.iov_len;
    }
    bytes_ += length;
  }
  entries_.push_back(std::move(entry));
}

void Journal::Flushed(uint64_t sequence) {
  while (!entries_.empty() && entries_.front().sequence <= sequence) {
    if (entries_.front().data) bytes_ -= entries_.front().length;
    entries_.pop_front();
  }
}

}  // namespace vioctl::nvme::host
