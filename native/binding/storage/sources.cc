#include "binding/storage/sources.h"

#include <cstring>

#include "binding/core/values.h"
#include "binding/storage/remote.h"
#include "storage/remote/nbd.h"
#include "storage/remote/rbd.h"

namespace vioctl::storage {
namespace {

std::string TextOf(const Napi::Object& given, const char* name) {
  const Napi::Value value = Field(given, name, Maybe(Kind::kPath));
  return value.IsString() ? Text(value) : std::string();
}

bool FlagOf(const Napi::Object& given, const char* name) {
  const Napi::Value value = Field(given, name, Maybe(Kind::kBoolean));
  return value.IsBoolean() && value.As<Napi::Boolean>().Value();
}

ZeroMode ZeroOf(const Napi::Object& given) {
  const std::string zero = TextOf(given, "zero");
  return zero == "unmap" ? ZeroMode::kUnmap : zero == "off" ? ZeroMode::kWrite : ZeroMode::kHoles;
}

}  // namespace

Napi::Value JsOpenNbd(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  NbdOptions options;
  options.uri = Text(Field(given, "uri", Kind::kPath));
  options.name = TextOf(given, "name");
  options.readonly = FlagOf(given, "readonly");
  options.shared = FlagOf(given, "shared");
  options.zero = ZeroOf(given);
  options.timeout_ms = U32(Field(given, "timeout", Kind::kUint32));
  return OpenRemote(info.Env(), [options] { return OpenNbd(options); });
}

Napi::Value JsOpenRbd(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  RbdOptions options;
  options.pool = Text(Field(given, "pool", Kind::kPath));
  options.space = TextOf(given, "namespace");
  options.image = Text(Field(given, "image", Kind::kPath));
  options.snapshot = TextOf(given, "snapshot");
  options.conf = TextOf(given, "conf");
  options.id = TextOf(given, "id");
  options.keyring = TextOf(given, "keyring");
  options.readonly = FlagOf(given, "readonly");
  options.shared = FlagOf(given, "shared");
  options.force = FlagOf(given, "force");
  options.claim = !FlagOf(given, "later");
  options.zero = ZeroOf(given);
  options.timeout_ms = U32(Field(given, "timeout", Kind::kUint32));
  return OpenRemote(info.Env(), [options] { return OpenRbd(options); });
}

}  // namespace vioctl::storage
