// What cat(1) does with a large file: it goes from one descriptor to another without passing through JavaScript.
#pragma once
#include <cstdint>

namespace vioctl::uring {

// Moves up to `limit` bytes of a file, from `offset` on, to where `out` stands; waits if `out` is full, also if it is
// non-blocking. The kernel moves them by itself where it can. Returns the bytes moved: 0 at the end of the file. What
// fails behind the first byte fails again in the next call. Throws SysError "read" or "write".
uint64_t Pour(int in, int out, uint64_t offset, uint64_t limit);

}  // namespace vioctl::uring
