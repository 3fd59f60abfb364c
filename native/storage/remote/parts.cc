#include "storage/remote/parts.h"

#include <algorithm>
#include <cstring>

namespace vioctl::storage {
namespace {

template <typename Copy>
void Through(const iovec* part, uint64_t at, uint64_t length, Copy copy) {
  for (uint64_t done = 0; done < length; part++) {
    if (at >= part->iov_len) {
      at -= part->iov_len;
      continue;
    }
    const uint64_t some = std::min<uint64_t>(length - done, part->iov_len - at);
    copy(static_cast<std::byte*>(part->iov_base) + at, done, some);
    done += some;
    at = 0;
  }
}

}  // namespace

void CopyFrom(const iovec* parts, uint64_t at, std::byte* to, uint64_t length) {
  Through(parts, at, length, [to](std::byte* part, uint64_t done, uint64_t some) { memcpy(to + done, part, some); });
}

void CopyTo(const std::byte* from, const iovec* parts, uint64_t at, uint64_t length) {
  Through(parts, at, length,
          [from](std::byte* part, uint64_t done, uint64_t some) { memcpy(part, from + done, some); });
}

}  // namespace vioctl::storage
