// Memory for secrets: kept out of swap where the limit on locked memory allows it, and wiped when it is given back. A
// process that has any leaves no core dump, and only root may trace it (prctl(2), PR_SET_DUMPABLE). Any thread may use
// it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace vioctl::os {

// Largest secret in bytes.
constexpr size_t kMaxSecret = 128;

// A zeroed place for a secret. Throws SysError: ENOMEM when the process has too many, or no memory; E2BIG.
uint8_t* TakeSecret(size_t size);
// Wipes a place and gives it back.
void GiveSecret(uint8_t* place) noexcept;
// Overwrites bytes so that the compiler cannot leave it out. There may be none.
void Wipe(std::span<uint8_t> bytes) noexcept;

}  // namespace vioctl::os
