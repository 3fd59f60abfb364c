#include "storage/direct.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "storage/geometry.h"

namespace vioctl::storage {
namespace {

constexpr size_t kBufferAlignment = 4096;

using Buffer = std::unique_ptr<std::byte, decltype(&::free)>;
Buffer Allocate(size_t size) {
  const size_t whole = (size + kBufferAlignment - 1) & ~(kBufferAlignment - 1);
  return {static_cast<std::byte*>(::aligned_alloc(kBufferAlignment, whole)), &::free};
}

uint64_t Total(const iovec* parts, int count) {
  uint64_t total = 0;
  for (int i = 0; i < count; i++) total += parts[i].iov_len;
  return total;
}

}  // namespace

Alignment AlignmentOf(int fd, const Geometry& geometry) {
  if (geometry.direct_offset > 0) return {std::max(geometry.direct_memory, 1u), geometry.direct_offset};
  if (geometry.device) return {geometry.logical, geometry.logical};
  constexpr uint32_t kSmall = 512;
  const Buffer buffer = Allocate(kBufferAlignment);
  if (buffer && ::pread(fd, buffer.get() + kSmall, kSmall, 0) >= 0) return {kSmall, kSmall};
  return {kBufferAlignment, kBufferAlignment};
}

bool Aligned(const Alignment& alignment, const iovec* parts, int count, uint64_t offset) {
  uint64_t bits = offset, addresses = 0;
  for (int i = 0; i < count; i++) {
    bits |= parts[i].iov_len;
    addresses |= reinterpret_cast<uintptr_t>(parts[i].iov_base);
  }
  return (bits & (alignment.offset - 1)) == 0 && (addresses & (alignment.memory - 1)) == 0;
}

int BouncedRead(int fd, const Alignment& alignment, const iovec* to, int count, uint64_t offset) {
  const uint64_t mask = alignment.offset - 1, length = Total(to, count);
  const uint64_t start = offset & ~mask, end = (offset + length + mask) & ~mask, wanted = offset + length - start;
  const Buffer buffer = Allocate(end - start);
  if (!buffer) return ENOMEM;
  uint64_t have = 0;
  while (have < wanted) {
    const ssize_t done = ::pread(fd, buffer.get() + have, end - start - have, static_cast<off_t>(start + have));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    have += static_cast<uint64_t>(done);
    // The end of the file, or a piece that no aligned read can follow.
    if (have < wanted && (done == 0 || (have & mask) != 0)) return EIO;
  }
  const std::byte* from = buffer.get() + (offset - start);
  for (int i = 0; i < count; from += to[i++].iov_len) memcpy(to[i].iov_base, from, to[i].iov_len);
  return 0;
}

int BouncedWrite(int fd, const Alignment& alignment, const iovec* from, int count, uint64_t offset) {
  const uint64_t mask = alignment.offset - 1, length = Total(from, count);
  if (((offset | length) & mask) != 0) return EINVAL;
  const Buffer buffer = Allocate(length);
  if (!buffer) return ENOMEM;
  std::byte* to = buffer.get();
  for (int i = 0; i < count; to += from[i++].iov_len) memcpy(to, from[i].iov_base, from[i].iov_len);
  for (uint64_t moved = 0; moved < length;) {
    const ssize_t done = ::pwrite(fd, buffer.get() + moved, length - moved, static_cast<off_t>(offset + moved));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    moved += static_cast<uint64_t>(done);
    if (moved < length && (done == 0 || (moved & mask) != 0)) return EIO;
  }
  return 0;
}

}  // namespace vioctl::storage
