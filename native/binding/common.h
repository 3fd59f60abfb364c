// Exports of native/common.
#pragma once
#include <napi.h>

namespace vioctl::common {

Napi::Value Crc32c(const Napi::CallbackInfo& info);        // crc32c(bytes, start = 0): number
Napi::Value Crc32cTable(const Napi::CallbackInfo& info);   // the same by table
Napi::Value Crc32cEngine(const Napi::CallbackInfo& info);  // "sse4.2" | "armv8" | "table"
Napi::Value Eventfd(const Napi::CallbackInfo& info);       // eventfd(): fd, non-blocking and close-on-exec
Napi::Value Signal(const Napi::CallbackInfo& info);        // signalEventfd(fd, count): adds to the counter
Napi::Value Notify(const Napi::CallbackInfo& info);        // sdNotify(path, text, fds?): one datagram to a UNIX socket
Napi::Value TcpListen(const Napi::CallbackInfo& info);     // tcpListen(address, port, ipv6): {fd, port}
Napi::Value TcpListener(const Napi::CallbackInfo& info);   // tcpListener(fd): {address, port, ipv6} | undefined
Napi::Value TcpShutdown(const Napi::CallbackInfo& info);   // tcpShutdown(fd): no more connections, for anybody
Napi::Value PageSize(const Napi::CallbackInfo& info);      // pageSize(): bytes of a page of this kernel
Napi::Value LastWords(const Napi::CallbackInfo& info);     // lastWords(text, path, caught): os/last_words.h
Napi::Value Secret(const Napi::CallbackInfo& info);        // secret(size): memory that core dumps leave out
Napi::Value ExitNow(const Napi::CallbackInfo& info);       // exitNow(status): _exit(2), no destructors

}  // namespace vioctl::common
