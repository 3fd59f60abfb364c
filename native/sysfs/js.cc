#include "sysfs/js.h"

#include "sysfs/write.h"

namespace vioctl::sysfs {

Napi::Value StartWrite(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>(), data = info[1].As<Napi::String>();
  return Napi::Number::New(info.Env(), StartWrite(path, data).Release());
}

}  // namespace vioctl::sysfs
