// How an exported function is called, and how its errors reach JavaScript: with the same `code`, `errno` and `syscall`
// that Node's own errors carry.
#pragma once
#include <napi.h>

#include <type_traits>

#include "binding/core/values.h"
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

// Wraps an exported function: its arguments are of the kinds named, and SysError and std::exception become JavaScript
// errors. Arguments behind those named are ignored.
template <Method F, Kind... Kinds>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  try {
    uint32_t i = 0;
    ((CheckKind(info[i], Kinds, {"argument", i + 1}), i++), ...);
    (void)i;
    return F(info);
  } catch (const SysError& error) {
    throw ToJs(info.Env(), error);
  } catch (const Napi::Error&) {
    throw;  // node-addon-api hands it over, or drops it if the environment is ending
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

// A method of an object that an export returns, with the same checks and errors.
template <Kind... Kinds, typename F>
void SetMethod(Napi::Object object, const char* name, F function) {
  const auto method = [function](const Napi::CallbackInfo& info) -> Napi::Value {
    try {
      uint32_t i = 0;
      ((CheckKind(info[i], Kinds, {"argument", i + 1}), i++), ...);
      (void)i;
      if constexpr (std::is_void_v<decltype(function(info))>) {
        function(info);
        return info.Env().Undefined();
      } else {
        return function(info);
      }
    } catch (const SysError& error) {
      throw ToJs(info.Env(), error);
    } catch (const Napi::Error&) {
      throw;
    } catch (const std::exception& error) {
      throw Napi::Error::New(info.Env(), error.what());
    }
  };
  object.Set(name, Napi::Function::New(object.Env(), method, name));
}

}  // namespace vioctl
