// Exports of native/vfio; src/native/vfio.ts has the types.
#pragma once
#include <napi.h>

namespace vioctl::vfio {

Napi::Value JsOpenGroup(const Napi::CallbackInfo& info);
Napi::Value JsOpenDevice(const Napi::CallbackInfo& info);
Napi::Value JsAdopt(const Napi::CallbackInfo& info);
Napi::Value JsClose(const Napi::CallbackInfo& info);
Napi::Value JsInfo(const Napi::CallbackInfo& info);
Napi::Value JsAvailable(const Napi::CallbackInfo& info);
Napi::Value JsRegion(const Napi::CallbackInfo& info);
Napi::Value JsIrq(const Napi::CallbackInfo& info);
Napi::Value JsRead(const Napi::CallbackInfo& info);
Napi::Value JsWrite(const Napi::CallbackInfo& info);
Napi::Value JsLoad(const Napi::CallbackInfo& info);
Napi::Value JsStore(const Napi::CallbackInfo& info);
Napi::Value JsMapRegion(const Napi::CallbackInfo& info);
Napi::Value JsMapDma(const Napi::CallbackInfo& info);
Napi::Value JsUnmapDma(const Napi::CallbackInfo& info);
Napi::Value JsEnableIrq(const Napi::CallbackInfo& info);
Napi::Value JsDisableIrq(const Napi::CallbackInfo& info);
Napi::Value JsMaskIrq(const Napi::CallbackInfo& info);
Napi::Value JsSetVfToken(const Napi::CallbackInfo& info);
Napi::Value JsReset(const Napi::CallbackInfo& info);
Napi::Value JsResetPeers(const Napi::CallbackInfo& info);
Napi::Value JsHotReset(const Napi::CallbackInfo& info);
Napi::Value JsNewMemory(const Napi::CallbackInfo& info);
Napi::Value JsFileMemory(const Napi::CallbackInfo& info);
Napi::Value JsPopulate(const Napi::CallbackInfo& info);
Napi::Value JsMemoryInfo(const Napi::CallbackInfo& info);
Napi::Value JsLoadMemory(const Napi::CallbackInfo& info);
Napi::Value JsReadMemory(const Napi::CallbackInfo& info);
Napi::Value JsWriteMemory(const Napi::CallbackInfo& info);
Napi::Value JsCloseMemory(const Napi::CallbackInfo& info);
Napi::Value JsChain(const Napi::CallbackInfo& info);
Napi::Value JsMemlock(const Napi::CallbackInfo& info);
Napi::Value JsSetMemlock(const Napi::CallbackInfo& info);
Napi::Value JsExec(const Napi::CallbackInfo& info);

}  // namespace vioctl::vfio
