#include "binding/common.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "common/crc32c.h"
#include "common/error.h"
#include "os/eventfd.h"
#include "os/fd.h"

namespace vioctl::common {
namespace {

using Function = uint32_t (*)(const void*, size_t, uint32_t);

Napi::Value Run(const Napi::CallbackInfo& info, Function function) {
  auto bytes = info[0].As<Napi::Uint8Array>();
  const uint32_t start = info[1].IsNumber() ? info[1].As<Napi::Number>().Uint32Value() : 0;
  return Napi::Number::New(info.Env(), function(bytes.Data(), bytes.ByteLength(), start));
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
  os::SignalEventfd(info[0].As<Napi::Number>(), static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value()));
  return info.Env().Undefined();
}

Napi::Value Notify(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>(), text = info[1].As<Napi::String>();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) throw SysError(ENAMETOOLONG, "connect", path);
  memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // abstract name, as sd_notify(3) spells it
  Fd socket(Check(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  Check(::sendto(socket.get(), text.data(), text.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), size),
        "sendto", path.c_str());
  return info.Env().Undefined();
}

Napi::Value ExitNow(const Napi::CallbackInfo& info) { ::_exit(info[0].As<Napi::Number>().Int32Value()); }

}  // namespace vioctl::common
