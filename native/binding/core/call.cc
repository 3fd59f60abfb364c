#include "binding/core/call.h"

namespace vioctl {

Napi::Error ToJs(Napi::Env env, const SysError& error) {
  Napi::Error js = Napi::Error::New(env, error.what());
  js.Set("code", ErrnoName(error.err()));
  js.Set("errno", Napi::Number::New(env, -error.err()));
  js.Set("syscall", error.call());
  return js;
}

}  // namespace vioctl
