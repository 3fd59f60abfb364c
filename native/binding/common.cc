#include "binding/common.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "binding/core/values.h"
#include "common/crc32c.h"
#include "common/error.h"
#include "os/eventfd.h"
#include "os/last_words.h"
#include "os/mapping.h"
#include "os/secrets.h"
#include "os/socket.h"

namespace vioctl::common {
namespace {

using Function = uint32_t (*)(const void*, size_t, uint32_t);

Napi::Value Run(const Napi::CallbackInfo& info, Function function) {
  const auto bytes = Bytes(info[0]);
  const uint32_t start = info[1].IsNumber() ? info[1].As<Napi::Number>().Uint32Value() : 0;
  return Napi::Number::New(info.Env(), function(bytes.data(), bytes.size(), start));
}

}  // namespace

Napi::Value Crc32c(const Napi::CallbackInfo& info) { return Run(info, &vioctl::Crc32c); }
Napi::Value Crc32cTable(const Napi::CallbackInfo& info) { return Run(info, &vioctl::Crc32cTable); }
Napi::Value Crc32cEngine(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), vioctl::Crc32cEngine());
}

Napi::Value Eventfd(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::NewEventfd().Release());
}

Napi::Value Signal(const Napi::CallbackInfo& info) {
  os::SignalEventfd(info[0].As<Napi::Number>(), U64(info[1]));
  return info.Env().Undefined();
}

Napi::Value Notify(const Napi::CallbackInfo& info) {
  std::vector<int> fds;
  if (info[2].IsArray()) {
    const auto list = info[2].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++)
      fds.push_back(Item(list, i, Kind::kInt32).As<Napi::Number>().Int32Value());
  }
  os::SendDatagram(Text(info[0]), Text(info[1]), fds);
  return info.Env().Undefined();
}

Napi::Value TcpListen(const Napi::CallbackInfo& info) {
  const uint32_t port = U32(info[1]);
  if (port > UINT16_MAX) throw SysError(EINVAL, "port");
  uint16_t bound = 0;
  Fd fd = os::ListenTcp(Text(info[0]), static_cast<uint16_t>(port), info[2].ToBoolean(), os::kListenBacklog, &bound);
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("port", bound);
  object.Set("fd", fd.Release());
  return object;
}

Napi::Value TcpListener(const Napi::CallbackInfo& info) {
  const auto place = os::AdoptListener(info[0].As<Napi::Number>().Int32Value());
  if (!place) return info.Env().Undefined();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("address", place->address);
  object.Set("port", place->port);
  object.Set("ipv6", place->ipv6);
  return object;
}

Napi::Value TcpShutdown(const Napi::CallbackInfo& info) {
  const int fd = info[0].As<Napi::Number>().Int32Value();
  if (::shutdown(fd, SHUT_RDWR) != 0 && errno != ENOTCONN) throw SysError(errno, "shutdown");
  return info.Env().Undefined();
}

Napi::Value PageSize(const Napi::CallbackInfo& info) { return Number(info.Env(), os::PageSize()); }

Napi::Value LastWords(const Napi::CallbackInfo& info) {
  os::SetLastWords(Text(info[0]), Text(info[1]), info[2].As<Napi::Boolean>());
  return info.Env().Undefined();
}

// What a secret counts for the garbage collector: places are few, so that those of no use must come back soon.
constexpr int64_t kSecretWeight = 16 << 10;

Napi::Value Secret(const Napi::CallbackInfo& info) {
  const size_t size = U32(info[0]);
  auto secret = Napi::Buffer<uint8_t>::New(info.Env(), os::TakeSecret(size), size, [](Napi::Env env, uint8_t* place) {
    os::GiveSecret(place);
    Napi::MemoryManagement::AdjustExternalMemory(env, -kSecretWeight);
  });
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), kSecretWeight);
  return secret;
}

Napi::Value ExitNow(const Napi::CallbackInfo& info) {
  os::SayLastWords();
  ::_exit(info[0].As<Napi::Number>().Int32Value());
}

}  // namespace vioctl::common
