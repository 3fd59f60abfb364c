// Opening of sources that are not of this machine.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>

#include "storage/store.h"

namespace vioctl::storage {

// Runs `open` on a thread of its own kind of work and gives a promise of the handle. `open` may wait, and bounds that
// itself; it throws SysError: ELIBACC of "dlopen" for a library that is not there, ELIBBAD of "dlsym" for one that
// lacks a function.
Napi::Value OpenRemote(Napi::Env env, std::function<std::shared_ptr<Store>()> open);

}  // namespace vioctl::storage
