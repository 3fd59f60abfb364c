// Made by npm run gen from src/native/vfio.ts. Change that.
// clang-format off
#pragma once
#include <cstdint>

namespace vioctl::vfio {

// Words of one DMA mapping: va, iova, size, access.
inline constexpr uint32_t kDmaRequestWords = 4;

// Bits of its access.
enum DmaAccess : uint64_t {
  kDeviceReads = 0x1,
  kDeviceWrites = 0x2,
};

}  // namespace vioctl::vfio
