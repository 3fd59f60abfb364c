// CRC-32C (Castagnoli, RFC 3720 B.4): the header and data digests of NVMe/TCP.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vioctl {

// Continues a CRC over size bytes. Start with 0; results chain: Crc32c(b, Crc32c(a, 0)) is the CRC of a then b.
uint32_t Crc32c(const void* data, size_t size, uint32_t crc = 0);

// The same by an 8x256 table on any machine; what Crc32c is tested against.
uint32_t Crc32cTable(const void* data, size_t size, uint32_t crc = 0);

// "sse4.2", "armv8" or "table": what Crc32c uses here.
const char* Crc32cEngine();

}  // namespace vioctl
