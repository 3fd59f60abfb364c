// Exports of a queue by itself (native/nvme/host/lone_queue.h).
#pragma once
#include <napi.h>

#include "binding/core/handle.h"
#include "nvme/host/lone_queue.h"

namespace vioctl {
template <>
inline constexpr const char* kHandleName<nvme::host::LoneQueue> = "queue";
}

namespace vioctl::nvme::host {

// queueOpen(options): promise of a handle
Napi::Value JsQueueOpen(const Napi::CallbackInfo& info);
// queueRun(handle, command): promise of the completion
Napi::Value JsQueueRun(const Napi::CallbackInfo& info);
// queueOver(handle): promise that rejects when the connection is over
Napi::Value JsQueueOver(const Napi::CallbackInfo& info);
// queueClose(handle)
Napi::Value JsQueueClose(const Napi::CallbackInfo& info);

}  // namespace vioctl::nvme::host
