// The families whose code is in the addon.
#include <blake3.h>

// Every function inline: nothing of xxHash is exported, or found in a library of the process instead.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "common/crc32c.h"
#include "uring/digest.h"

namespace vioctl::uring {
namespace {

class Crc32cState final : public DigestState {
 public:
  void Start() override { crc_ = 0; }
  void Update(const void* data, size_t size) override { crc_ = Crc32c(data, size, crc_); }
  bool Finish(uint8_t* out) override {
    for (int i = 0; i < 4; i++) out[i] = static_cast<uint8_t>(crc_ >> (24 - 8 * i));
    return true;
  }

 private:
  uint32_t crc_ = 0;
};

class Blake3State final : public DigestState {
 public:
  void Start() override { blake3_hasher_init(&hasher_); }
  void Update(const void* data, size_t size) override { blake3_hasher_update(&hasher_, data, size); }
  bool Finish(uint8_t* out) override {
    blake3_hasher_finalize(&hasher_, out, BLAKE3_OUT_LEN);
    return true;
  }

 private:
  blake3_hasher hasher_;
};

class Xxh32State final : public DigestState {
 public:
  void Start() override { XXH32_reset(&state_, 0); }
  void Update(const void* data, size_t size) override { XXH32_update(&state_, data, size); }
  bool Finish(uint8_t* out) override {
    XXH32_canonical_t canonical;
    XXH32_canonicalFromHash(&canonical, XXH32_digest(&state_));
    memcpy(out, canonical.digest, sizeof canonical.digest);
    return true;
  }

 private:
  XXH32_state_t state_;
};

class Xxh64State final : public DigestState {
 public:
  void Start() override { XXH64_reset(&state_, 0); }
  void Update(const void* data, size_t size) override { XXH64_update(&state_, data, size); }
  bool Finish(uint8_t* out) override {
    XXH64_canonical_t canonical;
    XXH64_canonicalFromHash(&canonical, XXH64_digest(&state_));
    memcpy(out, canonical.digest, sizeof canonical.digest);
    return true;
  }

 private:
  XXH64_state_t state_;
};

// XXH3 with 64 or 128 bits.
class Xxh3State final : public DigestState {
 public:
  explicit Xxh3State(bool wide) : wide_(wide) {}
  void Start() override {
    if (wide_)
      XXH3_128bits_reset(&state_);
    else
      XXH3_64bits_reset(&state_);
  }
  void Update(const void* data, size_t size) override {
    if (wide_)
      XXH3_128bits_update(&state_, data, size);
    else
      XXH3_64bits_update(&state_, data, size);
  }
  bool Finish(uint8_t* out) override {
    if (wide_) {
      XXH128_canonical_t canonical;
      XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state_));
      memcpy(out, canonical.digest, sizeof canonical.digest);
    } else {
      XXH64_canonical_t canonical;
      XXH64_canonicalFromHash(&canonical, XXH3_64bits_digest(&state_));
      memcpy(out, canonical.digest, sizeof canonical.digest);
    }
    return true;
  }

 private:
  const bool wide_;
  XXH3_state_t state_;
};

static_assert(BLAKE3_OUT_LEN <= kMaxDigest);

}  // namespace

std::unique_ptr<DigestState> MakeFastState(Family family) {
  switch (family) {
    case Family::kCrc32c:
      return std::make_unique<Crc32cState>();
    case Family::kBlake3:
      return std::make_unique<Blake3State>();
    case Family::kXxh32:
      return std::make_unique<Xxh32State>();
    case Family::kXxh64:
      return std::make_unique<Xxh64State>();
    case Family::kXxh3:
      return std::make_unique<Xxh3State>(false);
    case Family::kXxh128:
      return std::make_unique<Xxh3State>(true);
    case Family::kOpenSsl:
      break;
  }
  return nullptr;
}

}  // namespace vioctl::uring
