// How an exported function is called, and how its errors reach JavaScript: with the same `code`, `errno` and `syscall`
// that Node's own errors carry.
#pragma once
#include <napi.h>

#include "common/error.h"

namespace vioctl {

// The JavaScript error of a SysError: message `EBUSY: text, call 'detail'`, code, errno (negative, as Node's), syscall.
Napi::Error ToJs(Napi::Env env, const SysError& error);

// Runs code that the event loop calls and that nobody else catches for. What it throws becomes an uncaught exception of
// the environment, or is dropped if that is ending: JavaScript cannot run any more.
template <typename F>
void Report(Napi::Env env, F&& code) noexcept {
  try {
    try {
      code();
    } catch (const SysError& error) {
      napi_fatal_exception(env, ToJs(env, error).Value());
    } catch (const Napi::Error& error) {
      napi_fatal_exception(env, error.Value());
    } catch (const std::exception& error) {
      napi_fatal_exception(env, Napi::Error::New(env, error.what()).Value());
    }
  } catch (const Napi::Error&) {
    // Not even the error could be made: the environment is ending.
  }
}

using Method = Napi::Value (*)(const Napi::CallbackInfo&);

// Wraps an exported function: SysError and std::exception become JavaScript errors.
template <Method F>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  try {
    return F(info);
  } catch (const SysError& error) {
    throw ToJs(info.Env(), error);
  } catch (const Napi::Error&) {
    throw;  // node-addon-api hands it over, or drops it if the environment is ending
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

}  // namespace vioctl
