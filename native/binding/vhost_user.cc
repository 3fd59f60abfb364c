#include "binding/vhost_user.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "binding/core/values.h"
#include "binding/core/watch.h"
#include "common/error.h"
#include "os/eventfd.h"
#include "os/mapping.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/unix_sockets.h"

namespace vioctl::vhost_user {
Napi::Value JsConnect(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::Connect(Text(info[0])).Release());
}

Napi::Value JsListen(const Napi::CallbackInfo& info) {
  const auto number = [&info](size_t at) { return info[at].As<Napi::Number>().Uint32Value(); };
  Fd fd = os::Listen(Text(info[0]), static_cast<int>(number(1)), number(2), number(3), number(4));
  return Napi::Number::New(info.Env(), fd.Release());
}

Napi::Value JsAccept(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::Accept(info[0].As<Napi::Number>()).Release());
}

Napi::Value JsPair(const Napi::CallbackInfo& info) {
  Fd pair[2];
  os::Pair(pair);
  auto list = Napi::Array::New(info.Env(), 2);
  for (uint32_t i = 0; i < 2; i++) list.Set(i, Napi::Number::New(info.Env(), pair[i].get()));
  for (Fd& fd : pair) fd.Release();
  return list;
}

Napi::Value JsListenerPath(const Napi::CallbackInfo& info) {
  const auto path = os::ListenerPath(info[0].As<Napi::Number>());
  if (!path) return info.Env().Undefined();
  return Napi::String::New(info.Env(), *path);
}

Napi::Value JsPeer(const Napi::CallbackInfo& info) {
  const ucred peer = os::PeerOf(info[0].As<Napi::Number>());
  auto object = Napi::Object::New(info.Env());
  object.Set("pid", peer.pid);
  object.Set("uid", peer.uid);
  object.Set("gid", peer.gid);
  return object;
}

Napi::Value JsSend(const Napi::CallbackInfo& info) {
  auto bytes = info[1].As<Napi::Uint8Array>();
  const ssize_t sent = os::Send(info[0].As<Napi::Number>(), bytes.Data(), bytes.ByteLength(), Fds(info[2]));
  return Napi::Number::New(info.Env(), static_cast<double>(sent));
}

Napi::Value JsReceive(const Napi::CallbackInfo& info) {
  auto bytes = info[1].As<Napi::Uint8Array>();
  auto list = info[2].As<Napi::Array>();
  std::vector<Fd> fds;
  const ssize_t got = os::Receive(info[0].As<Napi::Number>(), bytes.Data(), bytes.ByteLength(), fds);
  // Only when JavaScript holds all numbers do the owners let go.
  uint32_t at = list.Length();
  for (const Fd& fd : fds) list.Set(at++, Napi::Number::New(info.Env(), fd.get()));
  for (Fd& fd : fds) fd.Release();
  return Napi::Number::New(info.Env(), static_cast<double>(got));
}

Napi::Value JsWatch(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[1].As<Napi::Function>()));
  auto context = std::make_shared<Napi::AsyncContext>(env, "vioctl:vhost-user");
  auto watch = std::make_shared<std::unique_ptr<Watch>>();
  *watch = std::make_unique<Watch>(env, info[0].As<Napi::Number>(),
                                   [env, callback, context] { callback->MakeCallback(env.Global(), {}, *context); });
  return WatchObject(env, watch);
}

Napi::Value JsSockets(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto list = Napi::Array::New(env);
  uint32_t at = 0;
  for (const os::UnixSocket& socket : os::UnixSockets()) {
    auto object = Napi::Object::New(env);
    object.Set("inode", socket.inode);
    object.Set("peer", socket.peer);
    object.Set("type", static_cast<uint32_t>(socket.type));
    object.Set("fileInode", socket.file_inode);
    object.Set("state", static_cast<uint32_t>(socket.state));
    std::string name = socket.name;
    if (!name.empty() && name[0] == '\0') name[0] = '@';
    while (!name.empty() && name.back() == '\0') name.pop_back();
    object.Set("name", name);
    list.Set(at++, object);
  }
  return list;
}

Napi::Value JsMemfd(const Napi::CallbackInfo& info) {
  Fd fd = os::NewMemfd(Text(info[0]), U64(info[1]), MFD_ALLOW_SEALING);
  if (const int seals = info[2].As<Napi::Number>()) os::AddSeals(fd.get(), seals);
  return Napi::Number::New(info.Env(), fd.Release());
}

Napi::Value JsSeals(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::Seals(info[0].As<Napi::Number>()));
}

Napi::Value JsAddSeals(const Napi::CallbackInfo& info) {
  os::AddSeals(info[0].As<Napi::Number>(), info[1].As<Napi::Number>());
  return info.Env().Undefined();
}

Napi::Value JsFdFlags(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::StatusFlags(info[0].As<Napi::Number>()));
}

Napi::Value JsDup(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::Duplicate(info[0].As<Napi::Number>()).Release());
}

Napi::Value JsTryMap(const Napi::CallbackInfo& info) {
  const bool writable = info[3].ToBoolean();
  Mapping::Map(info[0].As<Napi::Number>(), static_cast<size_t>(U64(info[2])),
               writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, static_cast<off_t>(U64(info[1])));
  return info.Env().Undefined();
}

Napi::Value JsLock(const Napi::CallbackInfo& info) {
  const int how = (info[1].ToBoolean() ? LOCK_EX : LOCK_SH) | LOCK_NB;
  if (::flock(info[0].As<Napi::Number>(), how) == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno != EWOULDBLOCK) throw SysError(errno, "flock");
  return Napi::Boolean::New(info.Env(), false);
}

Napi::Value JsSignal(const Napi::CallbackInfo& info) {
  // A full one is signalled already.
  os::SignalPeer(info[0].As<Napi::Number>());
  return info.Env().Undefined();
}

}  // namespace vioctl::vhost_user
