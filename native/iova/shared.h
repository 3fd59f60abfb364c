// Made by npm run gen from src/native/iova.ts. Change that.
// clang-format off
#pragma once
#include <cstdint>

namespace vioctl::iova {

// Words of one request: operation, va, size, iova, align, flags.
inline constexpr uint32_t kRequestWords = 6;

// Words of one outcome: errno, address, alignment or size.
inline constexpr uint32_t kOutcomeWords = 3;

// What a request asks for.
enum Operation : uint64_t {
  kMap = 0x0,
  kUnmap = 0x1,
  kFindVa = 0x2,
  kFindIova = 0x3,
  kReset = 0x4,
};

// Flags of a map request.
enum Flags : uint32_t {
  kFixed = 0x1,
  kTemporary = 0x2,
  kBelow4G = 0x4,
  kHasVa = 0x8,
};

}  // namespace vioctl::iova
