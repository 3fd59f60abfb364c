#include "binding/nvme/auth.h"

#include <cstring>
#include <memory>

#include "binding/core/async.h"
#include "binding/core/values.h"
#include "crypto/dh.h"

namespace vioctl::nvme {
namespace {

// Numbers of which some are secret.
struct Numbers {
  std::vector<uint8_t> base, exponent, modulus, result;
  ~Numbers() {
    for (auto* one : {&base, &exponent, &result}) ::explicit_bzero(one->data(), one->size());
  }
};

}  // namespace

Napi::Value DhPower(const Napi::CallbackInfo& info) {
  const auto numbers = std::make_shared<Numbers>();
  const auto take = [&](size_t i) {
    const auto bytes = Bytes(info[i]);
    return std::vector<uint8_t>(bytes.begin(), bytes.end());
  };
  numbers->base = take(0);
  numbers->exponent = take(1);
  numbers->modulus = take(2);
  return RunAsync(
      info.Env(), [numbers] { numbers->result = crypto::Power(numbers->base, numbers->exponent, numbers->modulus); },
      [numbers](Napi::Env env) -> Napi::Value {
        return Napi::Buffer<uint8_t>::Copy(env, numbers->result.data(), numbers->result.size());
      });
}

}  // namespace vioctl::nvme
