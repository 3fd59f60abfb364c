// Handles: what JavaScript holds of a native object. A handle knows its type and whether it is closed; a value that is
// no open handle of the type wanted is EINVAL, whatever it is. Nothing that JavaScript made up is ever dereferenced.
#pragma once
#include <napi.h>

#include <memory>

#include "common/error.h"

namespace vioctl {

// The name of a type in errors; each type that has handles says it: template <> inline constexpr const char*
// kHandleName<T> = "ring";
template <typename T>
inline constexpr const char* kHandleName = nullptr;

namespace handle {

// Behind each External. `type` is the address of kHandleName<T>.
struct Box {
  const void* type;
  std::shared_ptr<void> object;  // empty once closed
};

// A new External for an object. Its finalizer lets go of the object.
Napi::Value New(Napi::Env env, const void* type, std::shared_ptr<void> object);

// The box of a value, nullptr if the value is no handle that this environment made.
Box* Find(const Napi::Value& value);

}  // namespace handle

// A handle that keeps `object` until it is closed or collected, or the environment ends.
template <typename T>
Napi::Value NewHandle(Napi::Env env, std::shared_ptr<T> object) {
  static_assert(kHandleName<T> != nullptr);
  return handle::New(env, &kHandleName<T>, std::const_pointer_cast<std::remove_const_t<T>>(std::move(object)));
}

// The object of an open handle. Throws SysError EINVAL for anything else.
template <typename T>
std::shared_ptr<T> Share(const Napi::Value& value) {
  const handle::Box* box = handle::Find(value);
  if (!box || box->type != &kHandleName<T>) throw SysError(EINVAL, kHandleName<T>, "not a handle of this type");
  if (!box->object) throw SysError(EINVAL, kHandleName<T>, "the handle is closed");
  return std::static_pointer_cast<T>(box->object);
}

// The same without a share: the object lives as long as the handle stays open.
template <typename T>
T& Get(const Napi::Value& value) {
  const handle::Box* box = handle::Find(value);
  if (!box || box->type != &kHandleName<T>) throw SysError(EINVAL, kHandleName<T>, "not a handle of this type");
  if (!box->object) throw SysError(EINVAL, kHandleName<T>, "the handle is closed");
  return *static_cast<T*>(box->object.get());
}

// Closes a handle and gives what it held, nullptr if it was closed before: closing again is no error. Throws SysError
// EINVAL for anything else.
template <typename T>
std::shared_ptr<T> TakeFrom(const Napi::Value& value) {
  handle::Box* box = handle::Find(value);
  if (!box || box->type != &kHandleName<T>) throw SysError(EINVAL, kHandleName<T>, "not a handle of this type");
  return std::static_pointer_cast<T>(std::exchange(box->object, nullptr));
}

}  // namespace vioctl
