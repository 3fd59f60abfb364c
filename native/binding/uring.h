// Exports of native/uring: the ring of the JavaScript thread, and raw access for probing. src/native/uring.ts types
// them.
#pragma once
#include <napi.h>

namespace vioctl::uring::js {

// open({entries, cqEntries, prefer, require, idle, batch}): handle
Napi::Value Open(const Napi::CallbackInfo& info);
// info(handle): {fd, sqEntries, cqEntries, flags, features, registered, params, sqes, cqes, status}
Napi::Value Info(const Napi::CallbackInfo& info);
// submit(handle, count, want, timeoutMs): completions copied to the shared array
Napi::Value Submit(const Napi::CallbackInfo& info);
// watch(handle, callback(completions))
Napi::Value Watch(const Napi::CallbackInfo& info);
// register(handle, opcode, bytes | null, nr): result or -errno
Napi::Value Register(const Napi::CallbackInfo& info);
// enable(handle): 0 or -errno
Napi::Value Enable(const Napi::CallbackInfo& info);
// close(handle)
Napi::Value Close(const Napi::CallbackInfo& info);
// setup(entries, cqEntries, flags): features, or -errno; the ring is closed again
Napi::Value TrySetup(const Napi::CallbackInfo& info);
// registerRaw(fd, opcode, bytes | null, nr): result or -errno
Napi::Value RegisterRaw(const Napi::CallbackInfo& info);
// addressOf(Uint8Array): number
Napi::Value AddressOf(const Napi::CallbackInfo& info);
// checkFds(Int32Array): Uint8Array of 0 ok, 1 closed, 2 io_uring, 3 O_PATH, 4 negative
Napi::Value CheckFds(const Napi::CallbackInfo& info);
// syncfs(fd)
Napi::Value SyncFs(const Napi::CallbackInfo& info);
// pour(in, out, offset, limit): promise of the bytes moved
Napi::Value JsPour(const Napi::CallbackInfo& info);

// digestSize(algorithm): bytes of its digest, 0 where the addon does not compute it
Napi::Value DigestSize(const Napi::CallbackInfo& info);
// digestNew(algorithm): handle
Napi::Value DigestNew(const Napi::CallbackInfo& info);
// digestUpdate(handle, bytes)
Napi::Value DigestUpdate(const Napi::CallbackInfo& info);
// digestFinish(handle): bytes; the next one begins
Napi::Value DigestFinish(const Napi::CallbackInfo& info);
// bulkOpen({work, algorithm, threads, depth}, callback()): handle
Napi::Value BulkOpen(const Napi::CallbackInfo& info);
// bulkPush(handle, bytes, first)
Napi::Value BulkPush(const Napi::CallbackInfo& info);
// bulkTake(handle, buffer): results put there
Napi::Value BulkTake(const Napi::CallbackInfo& info);
// bulkStats(handle): {enters, overflows}
Napi::Value BulkStats(const Napi::CallbackInfo& info);
// bulkClose(handle)
Napi::Value BulkClose(const Napi::CallbackInfo& info);

}  // namespace vioctl::uring::js
