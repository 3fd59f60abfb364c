#include "common/crc32c.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

namespace vioctl {
namespace {

constexpr uint32_t kPoly = 0x82f63b78;  // x^32 + x^28 + … + 1, bits reversed

struct Tables {
  uint32_t t[8][256];
  constexpr Tables() : t() {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? kPoly : 0);
      t[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
      for (int k = 1; k < 8; k++) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 0xff];
  }
};
constexpr Tables kTables;

uint64_t Load64(const uint8_t* p) {
  uint64_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

#if defined(__x86_64__)

// x^(bits) mod P in reversed bit order: the factor that moves a CRC over bits/8 zero bytes.
constexpr uint32_t PowX(uint64_t bits) {
  uint32_t value = 0x80000000;  // x^0
  for (uint64_t i = 0; i < bits; i++) value = (value >> 1) ^ (value & 1 ? kPoly : 0);
  return value;
}

// Three streams hide the 3-cycle latency of crc32: a long block for bulk data, a short one for what is left.
constexpr size_t kLong = 1360, kShort = 168;

struct Block {
  size_t size;
  uint32_t one, two;  // factors for one and for two blocks behind
};
// clmul of two reversed 32-bit values is the product times x in 64 reversed bits, and crc32(0, 64 bits) multiplies by
// x^32 and reduces: so the factor is x^(bits - 33).
constexpr Block kBlocks[] = {{kLong, PowX(kLong * 8 - 33), PowX(kLong * 16 - 33)},
                             {kShort, PowX(kShort * 8 - 33), PowX(kShort * 16 - 33)}};

__attribute__((target("sse4.2,pclmul"))) uint64_t Shift(uint64_t crc, uint32_t factor) {
  __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(crc)),
                                         _mm_cvtsi32_si128(static_cast<int>(factor)), 0);
  return _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product)));
}

// Folding: 16 bytes that stand `bits` before others can be added to those after a multiplication of each half by a
// constant (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009, in
// the reversed order of bits). Four registers of 64 bytes hide the latency of the multiplication.
struct FoldFactors {
  uint64_t low, high;
  constexpr explicit FoldFactors(uint64_t bits)
      : low(uint64_t{PowX(bits + 32)} << 1), high(uint64_t{PowX(bits - 32)} << 1) {}
};
constexpr size_t kWide = 64, kFolded = 4 * kWide;
constexpr size_t kFoldMinimum = 2 * kFolded;  // below, three streams are as fast
constexpr FoldFactors kFar(kFolded * 8), kNear(kWide * 8);

#define VIOCTL_WIDE __attribute__((target("sse4.2,pclmul,avx512f,avx512vl,vpclmulqdq")))

VIOCTL_WIDE inline __m512i Fold(__m512i from, __m512i factors, __m512i to) {
  const __m512i low = _mm512_clmulepi64_epi128(from, factors, 0x00);
  const __m512i high = _mm512_clmulepi64_epi128(from, factors, 0x11);
  return _mm512_ternarylogic_epi64(low, high, to, 0x96);  // the sum of all three
}

VIOCTL_WIDE inline __m512i Wide(const FoldFactors& factors) {
  const auto low = static_cast<int64_t>(factors.low), high = static_cast<int64_t>(factors.high);
  return _mm512_set_epi64(high, low, high, low, high, low, high, low);
}

// The part of the data that is whole blocks of kFolded bytes, at least one; the caller does the rest.
VIOCTL_WIDE uint32_t Folded(const uint8_t* p, size_t blocks, uint32_t start) {
  __m512i x[4];
  for (size_t i = 0; i < 4; i++) x[i] = _mm512_loadu_si512(p + i * kWide);
  x[0] = _mm512_xor_si512(x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(start))));
  const __m512i far = Wide(kFar);
  while (--blocks > 0) {
    p += kFolded;
    for (size_t i = 0; i < 4; i++) x[i] = Fold(x[i], far, _mm512_loadu_si512(p + i * kWide));
  }
  const __m512i near = Wide(kNear);
  for (size_t i = 1; i < 4; i++) x[i] = Fold(x[i - 1], near, x[i]);
  alignas(kWide) uint64_t last[kWide / 8];
  _mm512_store_si512(last, x[3]);
  uint64_t crc = 0;
  for (const uint64_t word : last) crc = _mm_crc32_u64(crc, word);
  return static_cast<uint32_t>(crc);
}

#undef VIOCTL_WIDE

const bool kWideHere =
    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq");

__attribute__((target("sse4.2,pclmul"))) uint32_t Hardware(const uint8_t* p, size_t size, uint32_t start) {
  uint64_t crc = start;
  if (size >= kFoldMinimum && kWideHere) {
    const size_t blocks = size / kFolded;
    crc = Folded(p, blocks, start);
    p += blocks * kFolded;
    size -= blocks * kFolded;
  }
  for (const Block& block : kBlocks) {
    while (size >= 3 * block.size) {
      uint64_t b = 0, c = 0;
      const uint8_t* end = p + block.size;
      for (; p < end; p += 8) {
        crc = _mm_crc32_u64(crc, Load64(p));
        b = _mm_crc32_u64(b, Load64(p + block.size));
        c = _mm_crc32_u64(c, Load64(p + 2 * block.size));
      }
      crc = Shift(crc, block.two) ^ Shift(b, block.one) ^ c;
      p += 2 * block.size;
      size -= 3 * block.size;
    }
  }
  for (; size >= 8; p += 8, size -= 8) crc = _mm_crc32_u64(crc, Load64(p));
  for (; size > 0; p++, size--) crc = _mm_crc32_u8(static_cast<uint32_t>(crc), *p);
  return static_cast<uint32_t>(crc);
}

bool HardwareHere() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }
constexpr const char* kHardwareName = "sse4.2";

#elif defined(__aarch64__)

__attribute__((target("+crc"))) uint32_t Hardware(const uint8_t* p, size_t size, uint32_t crc) {
  for (; size >= 8; p += 8, size -= 8) crc = __crc32cd(crc, Load64(p));
  for (; size > 0; p++, size--) crc = __crc32cb(crc, *p);
  return crc;
}

bool HardwareHere() { return getauxval(AT_HWCAP) & HWCAP_CRC32; }
constexpr const char* kHardwareName = "armv8";

#else

uint32_t Hardware(const uint8_t*, size_t, uint32_t crc) { return crc; }
bool HardwareHere() { return false; }
constexpr const char* kHardwareName = "table";

#endif

const bool kHardware = HardwareHere();

}  // namespace

uint32_t Crc32cTable(const void* data, size_t size, uint32_t crc) {
  const auto* p = static_cast<const uint8_t*>(data);
  const auto& t = kTables.t;
  crc = ~crc;
  for (; size >= 8; p += 8, size -= 8) {
    uint64_t v = Load64(p) ^ crc;
    crc = t[7][v & 0xff] ^ t[6][(v >> 8) & 0xff] ^ t[5][(v >> 16) & 0xff] ^ t[4][(v >> 24) & 0xff] ^
          t[3][(v >> 32) & 0xff] ^ t[2][(v >> 40) & 0xff] ^ t[1][(v >> 48) & 0xff] ^ t[0][v >> 56];
  }
  for (; size > 0; p++, size--) crc = (crc >> 8) ^ t[0][(crc ^ *p) & 0xff];
  return ~crc;
}

uint32_t Crc32c(const void* data, size_t size, uint32_t crc) {
  if (!kHardware) return Crc32cTable(data, size, crc);
  return ~Hardware(static_cast<const uint8_t*>(data), size, ~crc);
}

const char* Crc32cEngine() { return kHardware ? kHardwareName : "table"; }

}  // namespace vioctl
