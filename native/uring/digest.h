// Checksums of bulk work, by name: CRC-32C is ours, the others are those of the OpenSSL that Node is linked with.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace vioctl::uring {

// Longest digest of any algorithm, bytes.
inline constexpr size_t kMaxDigest = 64;

// An algorithm, shared by all threads; lives as long as the process.
struct Algorithm {
  std::string_view name;  // as the command line spells it
  const char* openssl;    // EVP_MD_fetch's name; nullptr: CRC-32C
  uint32_t size;          // bytes of the digest
};

// nullptr where there is no such algorithm, or the Node that runs this has no OpenSSL 3 to ask for it.
const Algorithm* FindAlgorithm(std::string_view name);

// One checksum after the other; of one thread. Only the construction allocates.
class Digest {
 public:
  // Throws std::bad_alloc.
  explicit Digest(const Algorithm& algorithm);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void Start();
  void Update(const void* data, size_t size);
  // Writes the algorithm's `size` bytes. Returns false where OpenSSL could not compute it (no memory).
  bool Finish(uint8_t* out);

 private:
  const Algorithm& algorithm_;
  const void* method_ = nullptr;
  void* context_ = nullptr;
  uint32_t crc_ = 0;
  bool failed_ = false;
};

}  // namespace vioctl::uring
