#include "storage/zeroes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vioctl::storage {

bool AllZero(const iovec* parts, int count) {
  for (int i = 0; i < count; i++) {
    const auto* at = static_cast<const char*>(parts[i].iov_base);
    const size_t size = parts[i].iov_len;
    if (size == 0) continue;
    // The first byte is zero and each equals the next one.
    if (at[0] != 0 || memcmp(at, at + 1, size - 1) != 0) return false;
  }
  return true;
}

uint64_t HoleEnd(int fd, uint64_t offset) {
  // The position that this moves is used by nobody: all I/O names its own.
  const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data >= 0) return static_cast<uint64_t>(data);
  if (errno != ENXIO) return offset;
  // No data up to the end, which the file may have been cut to.
  struct stat st;
  return ::fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? std::max(offset, static_cast<uint64_t>(st.st_size)) : offset;
}

bool IsHole(int fd, uint64_t offset, uint64_t length) { return HoleEnd(fd, offset) >= offset + length; }

Range FirstData(int fd, uint64_t offset, uint64_t length) {
  if (IsHole(fd, offset, length)) return {offset + length, 0};
  const uint64_t end = offset + length;
  const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  const off_t hole = data < 0 ? -1 : ::lseek(fd, data, SEEK_HOLE);
  if (data < 0 || hole <= data) return {offset, length};  // whoever changes it finds out
  const uint64_t from = std::min(end, static_cast<uint64_t>(data));
  return {from, std::min(end, static_cast<uint64_t>(hole)) - from};
}

}  // namespace vioctl::storage
