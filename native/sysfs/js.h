// Exports of native/sysfs.
#pragma once
#include <napi.h>

namespace vioctl::sysfs {

Napi::Value StartWrite(const Napi::CallbackInfo& info);  // startWrite(path, data): descriptor to read the outcome from

}  // namespace vioctl::sysfs
