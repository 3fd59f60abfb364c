// Diffie-Hellman of DH-HMAC-CHAP: powers modulo a prime.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace vioctl::crypto {

// Largest modulus in bytes: ffdhe8192.
constexpr size_t kMaxModulus = 1024;

// base ^ exponent mod modulus, big-endian, as long as the modulus, in constant time with regard to the exponent. The
// modulus must be odd. Throws SysError: EINVAL, ENOMEM, ENOTSUP without OpenSSL's functions.
std::vector<uint8_t> Power(std::span<const uint8_t> base, std::span<const uint8_t> exponent,
                           std::span<const uint8_t> modulus);

}  // namespace vioctl::crypto
