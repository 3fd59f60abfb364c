// Exports of native/storage. A store is a handle; src/native/storage.ts gives it its type.
#pragma once
#include <napi.h>

#include "binding/core/handle.h"
#include "storage/store.h"

namespace vioctl {

template <>
inline constexpr const char* kHandleName<storage::Store> = "store";

}  // namespace vioctl

namespace vioctl::storage {

Napi::Value JsOpen(
    const Napi::CallbackInfo& info);  // open(path, {readonly, shared, force, direct, claim, zero}): store
Napi::Value JsOpenLater(
    const Napi::CallbackInfo& info);  // openLater({path, options, parts}[]): Promise of ({store, parts} | Error)[]
Napi::Value JsReach(const Napi::CallbackInfo& info);     // reach(path[]): Promise of ({mode, dev, ino, rdev} | Error)[]
Napi::Value JsRam(const Napi::CallbackInfo& info);       // ram(size): store
Napi::Value JsSize(const Napi::CallbackInfo& info);      // size(store): bytes
Napi::Value JsRefresh(const Napi::CallbackInfo& info);   // refresh(store): bytes, after a look at the file
Napi::Value JsGeometry(const Napi::CallbackInfo& info);  // geometry(store): object
Napi::Value JsIdentity(const Napi::CallbackInfo& info);  // identity(store): object | undefined
Napi::Value JsMeasure(const Napi::CallbackInfo& info);   // measure(store): Promise of refresh(store)
Napi::Value JsPeek(const Napi::CallbackInfo& info);      // peek(store, [at, length][]): (Buffer | undefined)[]
Napi::Value JsPeekLater(const Napi::CallbackInfo& info);      // peekLater(store, parts): Promise of peek(store, parts)
Napi::Value JsNews(const Napi::CallbackInfo& info);           // news(store): {what, error}[]
Napi::Value JsLastingName(const Napi::CallbackInfo& info);    // lastingName(store): text, maybe empty
Napi::Value JsFlush(const Napi::CallbackInfo& info);          // flush(store): Promise
Napi::Value JsRingRefusal(const Napi::CallbackInfo& info);    // ringRefusal(): {code, syscall} | undefined
Napi::Value JsBufferRefusal(const Napi::CallbackInfo& info);  // bufferRefusal(): errno name | undefined
Napi::Value JsSyncError(const Napi::CallbackInfo& info);      // syncError(store): errno name | undefined
Napi::Value JsFailures(const Napi::CallbackInfo& info);       // failures(store): {count, error}
Napi::Value JsSetLimits(const Napi::CallbackInfo& info);      // setLimits(store, limits)
Napi::Value JsLimits(const Napi::CallbackInfo& info);         // limits(store): {iops, bps, waiting, delayed}
Napi::Value JsClaim(const Napi::CallbackInfo& info);          // claim(store): Promise
Napi::Value JsRelease(const Napi::CallbackInfo& info);        // release(store): Promise
Napi::Value JsReopen(const Napi::CallbackInfo& info);         // reopen(store): Promise
Napi::Value JsFarewells(const Napi::CallbackInfo& info);      // farewells(ms): promise
Napi::Value JsClose(const Napi::CallbackInfo& info);          // close(store): void; closed once no command uses it

}  // namespace vioctl::storage
