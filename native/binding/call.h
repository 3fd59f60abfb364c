// How an exported function is called, and how its errors reach JavaScript: with the same `code`, `errno` and `syscall`
// that Node's own errors carry.
#pragma once
#include <napi.h>

#include "common/error.h"

namespace vioctl {

// The JavaScript error of a SysError: message `EBUSY: text, call 'detail'`, code, errno (negative, as Node's), syscall.
Napi::Error ToJs(Napi::Env env, const SysError& error);

using Method = Napi::Value (*)(const Napi::CallbackInfo&);

// Wraps an exported function: SysError and std::exception become JavaScript errors.
template <Method F>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  try {
    return F(info);
  } catch (const SysError& error) {
    throw ToJs(info.Env(), error);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

}  // namespace vioctl
