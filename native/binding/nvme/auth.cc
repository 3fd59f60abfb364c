#include "binding/nvme/auth.h"

#include <cstring>
#include <memory>

#include "binding/core/async.h"
#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "crypto/dh.h"
#include "crypto/tls.h"
#include "os/secrets.h"

namespace vioctl {

template <>
inline constexpr const char* kHandleName<crypto::Tls> = "TLS";

}  // namespace vioctl

namespace vioctl::nvme {
namespace {

using crypto::Tls;

// Numbers of which some are secret.
struct Numbers {
  std::vector<uint8_t> base, exponent, modulus, result;
  ~Numbers() {
    for (auto* one : {&base, &exponent, &result}) os::Wipe(*one);
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

namespace {

crypto::Psk PskOf(const Napi::CallbackInfo& info) {
  crypto::Psk psk;
  psk.identity = Text(info[0]);
  const auto key = Bytes(info[1]);
  if (key.size() != 32 && key.size() != 48) throw SysError(EINVAL, "key", "size");
  psk.key.assign(key.begin(), key.end());
  psk.hash = key.size() == 48 ? 2 : 1;
  return psk;
}

void Collect(Tls& tls, std::vector<uint8_t>& out) {
  const auto bytes = tls.Unsent();
  out.insert(out.end(), bytes.begin(), bytes.end());
  tls.Sent(bytes.size());
}

// Reads what there is. False: the connection is at its end.
bool Drain(Tls& tls, std::vector<uint8_t>& plain) {
  uint8_t record[Tls::kRecord];
  while (true) {
    const ssize_t got = tls.Read(record, sizeof record);
    if (got == -EAGAIN) return true;
    if (got == 0) return false;
    if (got < 0) throw SysError(EPROTO, "TLS", tls.reason());
    plain.insert(plain.end(), record, record + got);
  }
}

}  // namespace

Napi::Value TlsClient(const Napi::CallbackInfo& info) {
  return NewHandle(info.Env(), std::shared_ptr<Tls>(Tls::Client(PskOf(info))));
}

Napi::Value TlsServer(const Napi::CallbackInfo& info) {
  std::shared_ptr<Tls> tls(Tls::Server());
  tls->Answer(PskOf(info));
  return NewHandle(info.Env(), std::move(tls));
}

Napi::Value TlsTake(const Napi::CallbackInfo& info) {
  const auto tls = Share<Tls>(info[0]);
  auto bytes = Bytes(info[1]);
  std::vector<uint8_t> plain, out;
  bool open = true;
  do {
    const auto room = tls->Room();
    const size_t some = std::min(room.size(), bytes.size());
    if (some > 0) {
      memcpy(room.data(), bytes.data(), some);
      bytes = bytes.subspan(some);
      tls->Came(some);
    }
    const auto step = tls->Handshake();
    Collect(*tls, out);
    if (step == Tls::kFailed) throw SysError(EPROTO, "TLS", tls->reason());
    if (step == Tls::kDone) open = Drain(*tls, plain);
    Collect(*tls, out);
    if (step == Tls::kMore && some == 0) break;
  } while (open && !bytes.empty());
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("plain", Napi::Buffer<uint8_t>::Copy(info.Env(), plain.data(), plain.size()));
  object.Set("out", Napi::Buffer<uint8_t>::Copy(info.Env(), out.data(), out.size()));
  object.Set("established", tls->established());
  object.Set("ended", !open);
  return object;
}

Napi::Value TlsPut(const Napi::CallbackInfo& info) {
  const auto tls = Share<Tls>(info[0]);
  auto bytes = Bytes(info[1]);
  if (!tls->established()) throw SysError(ENOTCONN, "TLS");
  std::vector<uint8_t> out;
  out.reserve(bytes.size() + bytes.size() / 256 + 1024);
  while (!bytes.empty()) {
    const ssize_t done = tls->Write(bytes.data(), bytes.size());
    Collect(*tls, out);
    if (done < 0 && done != -EAGAIN) throw SysError(EPROTO, "TLS", tls->reason());
    if (done > 0) bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return Napi::Buffer<uint8_t>::Copy(info.Env(), out.data(), out.size());
}

}  // namespace vioctl::nvme
