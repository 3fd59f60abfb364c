#include "uring/digest.h"

#include <dlfcn.h>

#include <iterator>
#include <new>
#include <type_traits>

#include "common/crc32c.h"

namespace vioctl::uring {
namespace {

constexpr Algorithm kAlgorithms[] = {
    {"crc32c", nullptr, 4},   {"md5", "MD5", 16},       {"sha1", "SHA1", 20},     {"sha224", "SHA224", 28},
    {"sha256", "SHA256", 32}, {"sha384", "SHA384", 48}, {"sha512", "SHA512", 64}, {"blake2b512", "BLAKE2B-512", 64},
};

// The few functions of libcrypto that are needed. Node exports them for addons; they are looked up at run time, because
// OpenSSL's headers are part of no npm package and a Node may be built without OpenSSL.
struct OpenSsl {
  void* (*fetch)(void* library, const char* name, const char* properties);
  void* (*create)();
  void (*destroy)(void* context);
  int (*init)(void* context, const void* method, void* engine);
  int (*update)(void* context, const void* data, size_t size);
  int (*finish)(void* context, unsigned char* out, unsigned* size);

  static const OpenSsl* Get() {
    static const OpenSsl functions = [] {
      OpenSsl found{};
      const auto look = [](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(RTLD_DEFAULT, name));
      };
      look(found.fetch, "EVP_MD_fetch");  // OpenSSL 3: a method found once, for all threads
      look(found.create, "EVP_MD_CTX_new");
      look(found.destroy, "EVP_MD_CTX_free");
      look(found.init, "EVP_DigestInit_ex");
      look(found.update, "EVP_DigestUpdate");
      look(found.finish, "EVP_DigestFinal_ex");
      return found;
    }();
    const OpenSsl& f = functions;
    return f.fetch && f.create && f.destroy && f.init && f.update && f.finish ? &f : nullptr;
  }
};

// The method of an algorithm, fetched once. nullptr: this OpenSSL does not have it (FIPS).
const void* Method(const Algorithm& algorithm) {
  static const void* methods[std::size(kAlgorithms)] = {};
  const void*& method = methods[&algorithm - kAlgorithms];
  if (method == nullptr)
    if (const OpenSsl* openssl = OpenSsl::Get()) method = openssl->fetch(nullptr, algorithm.openssl, nullptr);
  return method;
}

}  // namespace

const Algorithm* FindAlgorithm(std::string_view name) {
  for (const Algorithm& algorithm : kAlgorithms)
    if (algorithm.name == name) return algorithm.openssl == nullptr || Method(algorithm) ? &algorithm : nullptr;
  return nullptr;
}

Digest::Digest(const Algorithm& algorithm) : algorithm_(algorithm) {
  if (algorithm.openssl == nullptr) return;
  method_ = Method(algorithm);
  context_ = OpenSsl::Get()->create();
  if (context_ == nullptr) throw std::bad_alloc();
}

Digest::~Digest() {
  if (context_) OpenSsl::Get()->destroy(context_);
}

void Digest::Start() {
  crc_ = 0;
  failed_ = context_ && OpenSsl::Get()->init(context_, method_, nullptr) != 1;
}

void Digest::Update(const void* data, size_t size) {
  if (context_ == nullptr)
    crc_ = Crc32c(data, size, crc_);
  else
    failed_ |= OpenSsl::Get()->update(context_, data, size) != 1;
}

bool Digest::Finish(uint8_t* out) {
  if (context_ == nullptr) {
    for (int i = 0; i < 4; i++) out[i] = static_cast<uint8_t>(crc_ >> (24 - 8 * i));
    return true;
  }
  unsigned size = 0;
  failed_ |= OpenSsl::Get()->finish(context_, out, &size) != 1 || size != algorithm_.size;
  return !failed_;
}

}  // namespace vioctl::uring
