// Exports of the sources that are not of this machine. Each gives a promise of a store.
#pragma once
#include <napi.h>

namespace vioctl::storage {

Napi::Value JsOpenNbd(const Napi::CallbackInfo& info);  // openNbd({uri, name, readonly, shared, zero, timeout})
Napi::Value JsOpenRbd(const Napi::CallbackInfo& info);  // openRbd({pool, namespace, image, ...})

}  // namespace vioctl::storage
