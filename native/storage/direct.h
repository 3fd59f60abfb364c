// I/O past the page cache (O_DIRECT), for buffers that it does not take as they are.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace vioctl::storage {

struct Geometry;

constexpr uint32_t kBufferAlignment = 4096;  // of our buffers: the largest logical block of a disk

// What O_DIRECT asks of addresses in memory, and of offsets and lengths. Powers of two.
struct Alignment {
  uint32_t memory = 1, offset = 1;
};

// Of a file that is open with O_DIRECT, from its geometry; kernels before 6.1 are asked by a read.
Alignment AlignmentOf(int fd, const Geometry& geometry);

bool Aligned(const Alignment& alignment, const iovec* parts, int count, uint64_t offset);

// Copies between one buffer and several parts, which it fills or empties.
void Gather(std::byte* to, const iovec* from, int count);
void Scatter(const std::byte* from, const iovec* to, int count);

// Read or write through an aligned buffer of at most 1 MiB, whatever the request's size: 0 or an errno. A read may
// begin and end anywhere; a write has to be aligned in the file (EINVAL), since what stands around it could change
// while it is read and written back.
int BouncedRead(int fd, const Alignment& alignment, const iovec* to, int count, uint64_t offset);
int BouncedWrite(int fd, const Alignment& alignment, const iovec* from, int count, uint64_t offset);

}  // namespace vioctl::storage
