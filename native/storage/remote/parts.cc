#include "storage/remote/parts.h"

#include <climits>
#include <cstring>

namespace vioctl::storage {

void CopyFrom(const iovec* parts, uint64_t at, std::byte* to, uint64_t length) {
  Through(parts, INT_MAX, at, length,
          [to](std::byte* part, uint64_t done, uint64_t some) { memcpy(to + done, part, some); });
}

void CopyTo(const std::byte* from, const iovec* parts, uint64_t at, uint64_t length) {
  Through(parts, INT_MAX, at, length,
          [from](std::byte* part, uint64_t done, uint64_t some) { memcpy(part, from + done, some); });
}

}  // namespace vioctl::storage
