// What the JavaScript faces of queues share.
#pragma once
#include <napi.h>

#include <memory>

#include "binding/call.h"
#include "vhost_user/virtqueue.h"

namespace vioctl::vhost_user {

// The memory behind a NativeMemory object. Throws SysError: EINVAL for another object, EBADF once it is closed.
std::shared_ptr<const GuestMemory> MemoryOf(const Napi::Value& value);
// A RingLayout object.
Virtqueue::Layout LayoutOf(const Napi::Value& value);

// A method of an object: SysError becomes a JavaScript error.
template <typename F>
Napi::Function Method(Napi::Env env, F function) {
  return Napi::Function::New(env, [function](const Napi::CallbackInfo& args) -> Napi::Value {
    try {
      return function(args);
    } catch (const SysError& error) {
      throw ToJs(args.Env(), error);
    }
  });
}

}  // namespace vioctl::vhost_user
