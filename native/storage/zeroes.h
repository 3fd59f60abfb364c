// Writes of zeroes: found by looking at the data, and done without taking space.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace vioctl::storage {

// What becomes of a write whose data is all zeroes.
enum class ZeroMode : uint8_t {
  kWrite,  // it is written
  kHoles,  // a hole stays a hole
  kUnmap,  // it makes a hole, if the file or device can
};

// Shorter writes are not looked at.
constexpr size_t kZeroMinimum = 4096;

// Whether the data is zeroes. Data that is none costs a look at its first bytes, as a rule.
bool AllZero(const iovec* parts, int count);

// Where the hole of a file that `offset` lies in ends, at the end of the file at the latest; `offset` if it is in none.
uint64_t HoleEnd(int fd, uint64_t offset);

// Whether a file has a hole over the whole range, within its size.
bool IsHole(int fd, uint64_t offset, uint64_t length);

// The first part of a range of a file that is no hole, as far as the file system tells them apart; none if the range is
// one hole.
struct Range {
  uint64_t offset = 0, length = 0;
};
Range FirstData(int fd, uint64_t offset, uint64_t length);

}  // namespace vioctl::storage
