#include "crypto/dh.h"

#include <cerrno>
#include <memory>

#include "common/error.h"
#include "crypto/openssl.h"

namespace vioctl::crypto {
namespace {

constexpr int kConstantTime = 0x04;  // BN_FLG_CONSTTIME

}  // namespace

std::vector<uint8_t> Power(std::span<const uint8_t> base, std::span<const uint8_t> exponent,
                           std::span<const uint8_t> modulus) {
  const BigNumbers* bn = BigNumbers::Get();
  if (!bn) throw SysError(ENOTSUP, "Diffie-Hellman", "this Node has no OpenSSL");
  for (const auto& number : {base, exponent, modulus})
    if (number.empty() || number.size() > kMaxModulus) throw SysError(EINVAL, "Diffie-Hellman", "size");
  if ((modulus.back() & 1) == 0) throw SysError(EINVAL, "Diffie-Hellman", "modulus");
  const auto free = [bn](void* number) { bn->clearFree(number); };
  using Number = std::unique_ptr<void, decltype(free)>;
  const auto read = [&](std::span<const uint8_t> bytes) {
    return Number(bn->fromBytes(bytes.data(), static_cast<int>(bytes.size()), nullptr), free);
  };
  const Number b = read(base), e = read(exponent), m = read(modulus), result(bn->fresh(), free);
  const std::unique_ptr<void, void (*)(void*)> context(bn->contextNew(), bn->contextFree);
  if (!b || !e || !m || !result || !context) throw SysError(ENOMEM, "Diffie-Hellman");
  bn->setFlags(e.get(), kConstantTime);
  std::vector<uint8_t> bytes(modulus.size());
  if (bn->modExp(result.get(), b.get(), e.get(), m.get(), context.get(), nullptr) != 1 ||
      bn->toBytes(result.get(), bytes.data(), static_cast<int>(bytes.size())) < 0)
    throw SysError(EINVAL, "Diffie-Hellman", "numbers");
  return bytes;
}

}  // namespace vioctl::crypto
