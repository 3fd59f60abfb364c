#include "crypto/openssl.h"

#include <dlfcn.h>

#include <type_traits>

namespace vioctl::crypto {
namespace {

// Looks functions up until one is missing.
class Lookup {
 public:
  template <typename F>
  Lookup& operator()(F& function, const char* name) {
    if (complete_) function = reinterpret_cast<F>(::dlsym(RTLD_DEFAULT, name));
    if (!function) complete_ = false;
    return *this;
  }
  bool complete() const { return complete_; }

 private:
  bool complete_ = true;
};

}  // namespace

const BigNumbers* BigNumbers::Get() {
  static BigNumbers f{};
  static const bool complete = [] {
    Lookup look;
    return look(f.contextNew, "BN_CTX_new")(f.contextFree, "BN_CTX_free")(f.fresh, "BN_new")(f.fromBytes, "BN_bin2bn")(
               f.toBytes, "BN_bn2binpad")(f.clearFree, "BN_clear_free")(f.setFlags, "BN_set_flags")(
               f.modExp, "BN_mod_exp_mont_consttime")
        .complete();
  }();
  return complete ? &f : nullptr;
}

}  // namespace vioctl::crypto
