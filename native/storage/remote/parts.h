// Copies between one buffer and a stretch of the data of a request, which lies in several parts.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace vioctl::storage {

// `at`: bytes of the parts that come before. The parts have at least `at + length` bytes.
void CopyFrom(const iovec* parts, uint64_t at, std::byte* to, uint64_t length);
void CopyTo(const std::byte* from, const iovec* parts, uint64_t at, uint64_t length);

}  // namespace vioctl::storage
