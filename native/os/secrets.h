// Memory for secrets: kept out of swap where the limit on locked memory allows it, and wiped when it is given back. A
// process that has any leaves no core dump, and only root may trace it (prctl(2), PR_SET_DUMPABLE). Any thread may use
// it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vioctl::os {

// Largest secret in bytes.
constexpr size_t kMaxSecret = 128;

// A zeroed place for a secret. Throws SysError: ENOMEM when the process has too many, or no memory; E2BIG.
uint8_t* TakeSecret(size_t size);
// Wipes a place and gives it back.
void GiveSecret(uint8_t* place) noexcept;
// Overwrites bytes so that the compiler cannot leave it out. There may be none.
void Wipe(std::span<uint8_t> bytes) noexcept;

// Puts what a vector holds into such a place. It throws what TakeSecret() throws.
template <typename T>
struct SecretAllocator {
  using value_type = T;
  T* allocate(size_t count) { return reinterpret_cast<T*>(TakeSecret(count * sizeof(T))); }
  void deallocate(T* at, size_t) noexcept { GiveSecret(reinterpret_cast<uint8_t*>(at)); }
  bool operator==(const SecretAllocator&) const { return true; }
};
using SecretBytes = std::vector<uint8_t, SecretAllocator<uint8_t>>;

}  // namespace vioctl::os
