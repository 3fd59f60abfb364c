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

constexpr uint64_t kPiece = 1 << 20;  // at most so much of a request is bounced at a time, or one unit if that is more

using Buffer = std::unique_ptr<std::byte, decltype(&::free)>;
Buffer Allocate(size_t size) {
  const size_t whole = (size + kBufferAlignment - 1) & ~static_cast<size_t>(kBufferAlignment - 1);
  return {static_cast<std::byte*>(::aligned_alloc(kBufferAlignment, whole)), &::free};
}

uint64_t Total(const iovec* parts, int count) {
  uint64_t total = 0;
  for (int i = 0; i < count; i++) total += parts[i].iov_len;
  return total;
}

// Goes through the bytes of several parts.
class Cursor {
 public:
  explicit Cursor(const iovec* part) : part_(part) {}
  // Calls each(address, size) for the next `size` bytes, piece by piece.
  template <typename F>
  void Next(uint64_t size, F&& each) {
    while (size > 0) {
      const uint64_t some = std::min<uint64_t>(size, part_->iov_len - inside_);
      each(static_cast<std::byte*>(part_->iov_base) + inside_, some);
      size -= some;
      inside_ += some;
      if (inside_ < part_->iov_len) continue;
      part_++;
      inside_ = 0;
    }
  }

 private:
  const iovec* part_;
  uint64_t inside_ = 0;
};

// Transfers `wanted` bytes at least: 0 or an errno. `io(have)` goes on behind the first `have` bytes.
template <typename F>
int Whole(uint64_t wanted, uint64_t mask, F&& io) {
  for (uint64_t have = 0; have < wanted;) {
    const ssize_t done = io(have);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    have += static_cast<uint64_t>(done);
    // The end of the file, or a place that no aligned call can go on from.
    if (have < wanted && (done == 0 || (have & mask) != 0)) return EIO;
  }
  return 0;
}

}  // namespace

void Gather(std::byte* to, const iovec* from, int count) {
  for (int i = 0; i < count; to += from[i++].iov_len) memcpy(to, from[i].iov_base, from[i].iov_len);
}

void Scatter(const std::byte* from, const iovec* to, int count) {
  for (int i = 0; i < count; from += to[i++].iov_len) memcpy(to[i].iov_base, from, to[i].iov_len);
}

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
  const uint64_t mask = alignment.offset - 1, stop = offset + Total(to, count);
  const uint64_t start = offset & ~mask, end = (stop + mask) & ~mask;
  const uint64_t piece = std::min(end - start, std::max<uint64_t>(kPiece, alignment.offset));
  const Buffer buffer = Allocate(piece);
  if (!buffer) return ENOMEM;
  Cursor cursor(to);
  for (uint64_t at = start; at < end; at += piece) {
    const uint64_t size = std::min(end - at, piece), wanted = std::min(size, stop - at);
    const int err = Whole(wanted, mask, [&](uint64_t have) {
      return ::pread(fd, buffer.get() + have, size - have, static_cast<off_t>(at + have));
    });
    if (err != 0) return err;
    const uint64_t before = at < offset ? offset - at : 0;
    const std::byte* from = buffer.get() + before;
    cursor.Next(wanted - before, [&from](std::byte* part, uint64_t some) {
      memcpy(part, from, some);
      from += some;
    });
  }
  return 0;
}

int BouncedWrite(int fd, const Alignment& alignment, const iovec* from, int count, uint64_t offset) {
  const uint64_t mask = alignment.offset - 1, length = Total(from, count);
  if (((offset | length) & mask) != 0) return EINVAL;
  const uint64_t piece = std::min(length, std::max<uint64_t>(kPiece, alignment.offset));
  const Buffer buffer = Allocate(piece);
  if (!buffer) return ENOMEM;
  Cursor cursor(from);
  for (uint64_t moved = 0; moved < length; moved += piece) {
    const uint64_t size = std::min(length - moved, piece);
    std::byte* to = buffer.get();
    cursor.Next(size, [&to](const std::byte* part, uint64_t some) {
      memcpy(to, part, some);
      to += some;
    });
    const int err = Whole(size, mask, [&](uint64_t have) {
      return ::pwrite(fd, buffer.get() + have, size - have, static_cast<off_t>(offset + moved + have));
    });
    if (err != 0) return err;
  }
  return 0;
}

}  // namespace vioctl::storage
