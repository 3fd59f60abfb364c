// Exports of native/sysfs.
#pragma once
#include <napi.h>

namespace vioctl::sysfs {

Napi::Value JsStartWrite(
    const Napi::CallbackInfo& info);                    // startWrite(path, data): descriptor to read the outcome from
Napi::Value JsReadAll(const Napi::CallbackInfo& info);  // readAll(paths, timeout): (string | null | false)[]
// readFolders(base, names, files, links, headers): (string | null)[]
Napi::Value JsReadFolders(const Napi::CallbackInfo& info);
Napi::Value JsRoutes(const Napi::CallbackInfo& info);  // routes(): {family, destination, prefix, device, table}[]
Napi::Value JsXdpPrograms(const Napi::CallbackInfo& info);
Napi::Value JsXdpSockets(const Napi::CallbackInfo& info);
Napi::Value JsWireguardPeers(const Napi::CallbackInfo& info);
Napi::Value JsDescriptors(const Napi::CallbackInfo& info);  // descriptors(): {found: {pid, fd, path, rdev}[], hidden}

}  // namespace vioctl::sysfs
