// The functions of OpenSSL that are used here beside its digests. Node exports them for addons; they are looked up at
// run time, because OpenSSL's headers are part of no npm package, and a Node may be built without OpenSSL.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vioctl::crypto {

// Big numbers, for Diffie-Hellman.
struct BigNumbers {
  void* (*contextNew)();
  void (*contextFree)(void* context);
  void* (*fresh)();
  void* (*fromBytes)(const uint8_t* bytes, int size, void* into);
  int (*toBytes)(const void* number, uint8_t* bytes, int size);
  void (*clearFree)(void* number);
  void (*setFlags)(void* number, int flags);
  int (*modExp)(void* result, const void* base, const void* exponent, const void* modulus, void* context, void* mont);

  // nullptr: this Node has not all of them.
  static const BigNumbers* Get();
};

}  // namespace vioctl::crypto
