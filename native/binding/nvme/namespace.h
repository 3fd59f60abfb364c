// Exports of a remote namespace (native/nvme/host).
#pragma once
#include <napi.h>

#include "binding/core/handle.h"
#include "nvme/host/host.h"

namespace vioctl {
template <>
inline constexpr const char* kHandleName<nvme::host::Host> = "remote namespace";
}

namespace vioctl::nvme::host {

constexpr uint32_t kMaxEntries = 65'536;  // of a queue: CAP.MQES has 16 bits

// The options of a host from JavaScript (HostOptions of src/native/nvme-host.ts). Throws SysError EINVAL.
NamespaceOptions OptionsOf(const Napi::Object& given);

// TLS with the keys of an array of {identity, psk}; plain connections without one. Throws SysError EINVAL.
Dialer DialerOf(const Napi::Value& value);

// A JavaScript error with the status of the command that the controller refused.
Napi::Error Refused(Napi::Env env, const CommandError& error);

// hostOpen(options): {done: Promise<handle>, stop()}
Napi::Value JsHostOpen(const Napi::CallbackInfo& info);
// hostSource(options): promise of a store
Napi::Value JsHostSource(const Napi::CallbackInfo& info);
// hostStamp(): bytes that the controllers of this process carry
Napi::Value JsHostStamp(const Napi::CallbackInfo& info);
// hostHops(store): bytes for Identify Namespace of what is stored there
Napi::Value JsHostHops(const Napi::CallbackInfo& info);
// hostPaths(store, found?): {live, all} of a store of hostSource(), after it was told of these addresses
Napi::Value JsHostPaths(const Napi::CallbackInfo& info);
// hostFacts(handle): what was found
Napi::Value JsHostFacts(const Napi::CallbackInfo& info);
// hostCopy(handle, options): {done: Promise<result>, stop(), progress(): bytes}
Napi::Value JsHostCopy(const Napi::CallbackInfo& info);
// hostClose(handle): Promise
Napi::Value JsHostClose(const Napi::CallbackInfo& info);

}  // namespace vioctl::nvme::host
