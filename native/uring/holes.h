// Holes of sparse files: what reads as zeros without a block on the disk is summed without being read, which would cost
// a copy and fill the page cache.
#pragma once
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace vioctl::uring {

// Holes below this are read with the data around them.
inline constexpr uint64_t kLeastHole = 64 << 10;

// Zeros to sum for a hole, and what digest code may load behind them.
inline constexpr size_t kZeros = 512 << 10, kZerosSlack = 4 << 10;
inline const uint8_t* Zeros() {
  static uint8_t zeros[kZeros + kZerosSlack];  // never written: one page of zeros, mapped again and again
  return zeros;
}

// Whether a regular file has fewer blocks (of 512 bytes) than its size needs.
inline bool IsSparse(uint64_t size, uint64_t blocks) { return size > kLeastHole && blocks < size / 512; }

// Bytes of the hole that begins at `offset`, at most kZeros; 0 if there is data, the end, or a hole too small to
// matter. Moves the position of the descriptor.
inline size_t HoleAt(int fd, uint64_t offset) {
  const off_t at = static_cast<off_t>(offset);
  off_t data = ::lseek(fd, at, SEEK_DATA);
  if (data < 0 && errno == ENXIO) data = ::lseek(fd, 0, SEEK_END);  // nothing but hole up to the end
  if (data < at) return 0;
  const auto size = static_cast<uint64_t>(data - at);
  return size < kLeastHole ? 0 : static_cast<size_t>(size < kZeros ? size : kZeros);
}

}  // namespace vioctl::uring
