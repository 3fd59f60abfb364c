#include "uring/digest.h"

#include <dlfcn.h>

#include <iterator>
#include <new>
#include <type_traits>

namespace vioctl::uring {
namespace {

constexpr Algorithm kAlgorithms[] = {
    {"crc32c", Family::kCrc32c, 4, nullptr},    {"md5", Family::kOpenSsl, 16, "MD5"},
    {"sha1", Family::kOpenSsl, 20, "SHA1"},     {"sha224", Family::kOpenSsl, 28, "SHA224"},
    {"sha256", Family::kOpenSsl, 32, "SHA256"}, {"sha384", Family::kOpenSsl, 48, "SHA384"},
    {"sha512", Family::kOpenSsl, 64, "SHA512"}, {"blake2b512", Family::kOpenSsl, 64, "BLAKE2B-512"},
    {"blake3", Family::kBlake3, 32, nullptr},   {"xxh32", Family::kXxh32, 4, nullptr},
    {"xxh64", Family::kXxh64, 8, nullptr},      {"xxh3", Family::kXxh3, 8, nullptr},
    {"xxh128", Family::kXxh128, 16, nullptr},
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

class OpenSslState final : public DigestState {
 public:
  explicit OpenSslState(const Algorithm& algorithm)
      : size_(algorithm.size), method_(Method(algorithm)), context_(OpenSsl::Get()->create()) {
    if (context_ == nullptr) throw std::bad_alloc();
  }
  ~OpenSslState() override { OpenSsl::Get()->destroy(context_); }
  OpenSslState(const OpenSslState&) = delete;
  OpenSslState& operator=(const OpenSslState&) = delete;

  void Start() override { failed_ = OpenSsl::Get()->init(context_, method_, nullptr) != 1; }
  void Update(const void* data, size_t size) override { failed_ |= OpenSsl::Get()->update(context_, data, size) != 1; }
  bool Finish(uint8_t* out) override {
    unsigned size = 0;
    failed_ |= OpenSsl::Get()->finish(context_, out, &size) != 1 || size != size_;
    return !failed_;
  }

 private:
  const uint32_t size_;
  const void* const method_;
  void* const context_;
  bool failed_ = false;
};

}  // namespace

const Algorithm* FindAlgorithm(std::string_view name) {
  for (const Algorithm& algorithm : kAlgorithms)
    if (algorithm.name == name) return algorithm.family != Family::kOpenSsl || Method(algorithm) ? &algorithm : nullptr;
  return nullptr;
}

Digest::Digest(const Algorithm& algorithm)
    : state_(algorithm.family == Family::kOpenSsl ? std::make_unique<OpenSslState>(algorithm)
                                                  : MakeFastState(algorithm.family)) {}

}  // namespace vioctl::uring
