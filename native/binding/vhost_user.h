// Exports of native/vhost_user. Descriptors cross as numbers; whoever gets one owns it.
#pragma once
#include <napi.h>

namespace vioctl::vhost_user {

Napi::Value JsConnect(const Napi::CallbackInfo& info);  // connect(path): fd
// listen(path, backlog, mode, uid, gid): fd
Napi::Value JsListen(const Napi::CallbackInfo& info);
Napi::Value JsAccept(const Napi::CallbackInfo& info);        // accept(fd): fd | -1
Napi::Value JsPair(const Napi::CallbackInfo& info);          // socketPair(): [fd, fd]
Napi::Value JsListenerPath(const Napi::CallbackInfo& info);  // listenerPath(fd): path or undefined
Napi::Value JsPeer(const Napi::CallbackInfo& info);          // peer(fd): {pid, uid, gid}
Napi::Value JsSend(const Napi::CallbackInfo& info);          // send(fd, bytes, fds): sent | -1
Napi::Value JsReceive(const Napi::CallbackInfo& info);       // receive(fd, bytes, fds): received | 0 | -1
Napi::Value JsWatch(const Napi::CallbackInfo& info);         // watchReadable(fd, callback): {close, ref}
Napi::Value JsSockets(const Napi::CallbackInfo& info);   // unixSockets(): [{inode, peer, type, state, fileInode, name}]
Napi::Value JsMemfd(const Napi::CallbackInfo& info);     // memfd(name, size, seals): fd
Napi::Value JsSeals(const Napi::CallbackInfo& info);     // seals(fd): bits, -1 where the file has none
Napi::Value JsAddSeals(const Napi::CallbackInfo& info);  // addSeals(fd, bits)
Napi::Value JsFdFlags(const Napi::CallbackInfo& info);   // fdFlags(fd): F_GETFL
Napi::Value JsDup(const Napi::CallbackInfo& info);       // dup(fd): fd, close-on-exec
Napi::Value JsTryMap(const Napi::CallbackInfo& info);    // tryMap(fd, offset, size, writable)
Napi::Value JsLock(const Napi::CallbackInfo& info);      // lock(fd, exclusive): whether it was free
Napi::Value JsSignal(const Napi::CallbackInfo& info);    // signal(fd): adds one to a peer's eventfd
Napi::Value JsMemory(const Napi::CallbackInfo& info);    // guestMemory(regions, fds): GuestMemory
Napi::Value JsInflightBytes(
    const Napi::CallbackInfo& info);  // inflightBytes(size): bytes of a queue's in-flight region
Napi::Value JsInflight(
    const Napi::CallbackInfo& info);  // inflightRegion(fd, bytes, offset, queues, size): InflightRegion
Napi::Value JsDirtyLog(const Napi::CallbackInfo& info);  // dirtyLog(fd, size, offset): DirtyLog
Napi::Value JsQueue(const Napi::CallbackInfo& info);     // virtqueue(memory, layout): Virtqueue

Napi::Value JsBlkQueue(const Napi::CallbackInfo& info);  // blkQueue(store, memory, layout, options): NativeBlkQueue

}  // namespace vioctl::vhost_user
