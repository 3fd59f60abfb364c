// A stretch of the data of a request, which lies in several parts.
#pragma once
#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace vioctl::storage {

// Calls `each` with every piece of bytes [at, at + length) of the parts: where it lies, the bytes before it, its bytes.
// Ends with the last of `count` parts.
template <typename Each>
void Through(const iovec* parts, int count, uint64_t at, uint64_t length, Each each) {
  for (uint64_t done = 0; count > 0 && done < length; parts++, count--) {
    if (at >= parts->iov_len) {
      at -= parts->iov_len;
      continue;
    }
    const uint64_t some = std::min<uint64_t>(length - done, parts->iov_len - at);
    each(static_cast<std::byte*>(parts->iov_base) + at, done, some);
    done += some;
    at = 0;
  }
}

// Copies between one buffer and the parts. `at`: bytes of the parts that come before. The parts have at least `at +
// length` bytes.
void CopyFrom(const iovec* parts, uint64_t at, std::byte* to, uint64_t length);
void CopyTo(const std::byte* from, const iovec* parts, uint64_t at, uint64_t length);

}  // namespace vioctl::storage
