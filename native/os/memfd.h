// Anonymous files in memory, and the seals that keep their size.
#pragma once
#include <cstdint>
#include <string>

#include "os/fd.h"

namespace vioctl::os {

// A new memfd of `size` bytes, close-on-exec. flags: MFD_ALLOW_SEALING, MFD_HUGETLB with its page size. Throws
// SysError.
Fd NewMemfd(const std::string& name, uint64_t size, unsigned flags);

// The seals of a file (F_SEAL_*), -1 if it is of a kind that has none. Throws SysError.
int Seals(int fd);
void AddSeals(int fd, int seals);

}  // namespace vioctl::os
