// Checksums of bulk work, by name: CRC-32C is ours; BLAKE3 and xxHash are the reference implementations, which npm
// packages carry; the others are those of the OpenSSL that Node is linked with.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace vioctl::uring {

// Longest digest of any algorithm, bytes.
inline constexpr size_t kMaxDigest = 64;

enum class Family : uint8_t { kCrc32c, kOpenSsl, kBlake3, kXxh32, kXxh64, kXxh3, kXxh128 };

// An algorithm, shared by all threads; lives as long as the process.
struct Algorithm {
  std::string_view name;  // as the command line spells it
  Family family;
  uint32_t size;        // bytes of the digest
  const char* openssl;  // EVP_MD_fetch's name; nullptr: not OpenSSL's
};

// nullptr if there is no such algorithm, or the Node that runs this has no OpenSSL 3 to ask for it.
const Algorithm* FindAlgorithm(std::string_view name);

// The state of one family.
class DigestState {
 public:
  virtual ~DigestState() = default;
  virtual void Start() = 0;
  virtual void Update(const void* data, size_t size) = 0;
  // Writes the digest as it is printed, the first byte first. Returns false if it could not be computed (no memory).
  virtual bool Finish(uint8_t* out) = 0;
};

// One checksum after the other; of one thread. Only the construction allocates.
class Digest {
 public:
  // Throws std::bad_alloc.
  explicit Digest(const Algorithm& algorithm);

  void Start() { state_->Start(); }
  void Update(const void* data, size_t size) { state_->Update(data, size); }
  // Writes the algorithm's `size` bytes. Returns false if it could not be computed (no memory).
  bool Finish(uint8_t* out) { return state_->Finish(out); }

 private:
  std::unique_ptr<DigestState> state_;
};

// The state of a family that needs no OpenSSL.
std::unique_ptr<DigestState> MakeFastState(Family family);

}  // namespace vioctl::uring
