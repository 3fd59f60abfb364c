#include "binding/sysfs.h"

#include <sys/socket.h>

#include "binding/core/values.h"
#include "os/netlink/links.h"
#include "os/netlink/routes.h"
#include "os/netlink/wireguard.h"
#include "sysfs/descriptors.h"
#include "sysfs/detached.h"
#include "sysfs/folders.h"

namespace vioctl::sysfs {

Napi::Value JsStartWrite(const Napi::CallbackInfo& info) {
  const std::string path = vioctl::Text(info[0]), data = vioctl::Text(info[1]);
  return Napi::Number::New(info.Env(), StartWrite(path, data).Release());
}

Napi::Value JsReadAll(const Napi::CallbackInfo& info) {
  const std::vector<Attribute> found = ReadAll(Texts(info[0]), info[1].As<Napi::Number>());
  auto result = Napi::Array::New(info.Env(), found.size());
  for (uint32_t i = 0; i < found.size(); i++) {
    switch (found[i].state) {
      case Attribute::State::kRead:
        result.Set(i, Napi::String::New(info.Env(), found[i].text));
        break;
      case Attribute::State::kFailed:
        result.Set(i, info.Env().Null());
        break;
      case Attribute::State::kStuck:
        result.Set(i, Napi::Boolean::New(info.Env(), false));
        break;
    }
  }
  return result;
}

Napi::Value JsReadFolders(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Wanted wanted{Texts(info[2]), Texts(info[3]), Texts(info[4])};
  const std::vector<Folder> folders = ReadFolders(vioctl::Text(info[0]), Texts(info[1]), wanted);
  const size_t texts = wanted.files.size() + wanted.links.size(), values = texts + wanted.headers.size();
  auto result = Napi::Array::New(env, folders.size() * (values + 2));
  uint32_t at = 0;
  const auto add = [&](const Text* text) {
    result.Set(at++, text && text->found ? Napi::String::New(env, text->text).As<Napi::Value>() : env.Null());
  };
  for (const Folder& folder : folders) {
    result.Set(at++, folder.found ? Napi::String::New(env, folder.names).As<Napi::Value>() : env.Null());
    add(&folder.target);
    for (size_t i = 0; i < values; i++) {
      const Text* text = folder.found ? &folder.values[i] : nullptr;
      if (text && text->found && i >= texts)
        result.Set(at++, Napi::Buffer<char>::Copy(env, text->text.data(), text->text.size()));
      else
        add(text);
    }
  }
  return result;
}

Napi::Value JsRoutes(const Napi::CallbackInfo& info) {
  const std::vector<os::Route> routes = os::Routes();
  auto result = Napi::Array::New(info.Env(), routes.size());
  for (uint32_t i = 0; i < routes.size(); i++) {
    auto route = Napi::Object::New(info.Env());
    route.Set("family", Napi::Number::New(info.Env(), routes[i].family == AF_INET ? 4 : 6));
    route.Set("destination", Napi::String::New(info.Env(), routes[i].destination));
    route.Set("prefix", Napi::Number::New(info.Env(), routes[i].prefix));
    route.Set("device", Napi::String::New(info.Env(), routes[i].device));
    route.Set("table", Napi::Number::New(info.Env(), routes[i].table));
    result.Set(i, route);
  }
  return result;
}

Napi::Value JsXdpPrograms(const Napi::CallbackInfo& info) {
  const std::vector<std::string> names = os::XdpPrograms();
  auto result = Napi::Array::New(info.Env(), names.size());
  for (uint32_t i = 0; i < names.size(); i++) result.Set(i, Napi::String::New(info.Env(), names[i]));
  return result;
}

Napi::Value JsXdpSockets(const Napi::CallbackInfo& info) {
  const std::vector<os::XdpSocket> sockets = os::XdpSockets();
  auto result = Napi::Array::New(info.Env(), sockets.size());
  for (uint32_t i = 0; i < sockets.size(); i++) {
    auto socket = Napi::Object::New(info.Env());
    socket.Set("device", Napi::String::New(info.Env(), sockets[i].device));
    socket.Set("queue", Napi::Number::New(info.Env(), sockets[i].queue));
    result.Set(i, socket);
  }
  return result;
}

Napi::Value JsWireguardPeers(const Napi::CallbackInfo& info) {
  const std::vector<os::WireguardPeer> peers = os::WireguardPeers(Texts(info[0]));
  auto result = Napi::Array::New(info.Env(), peers.size());
  for (uint32_t i = 0; i < peers.size(); i++) {
    auto peer = Napi::Object::New(info.Env());
    peer.Set("name", Napi::String::New(info.Env(), peers[i].device));
    peer.Set("peer", Napi::String::New(info.Env(), peers[i].address));
    result.Set(i, peer);
  }
  return result;
}

Napi::Value JsDescriptors(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Descriptors scan = ScanDescriptors();
  auto found = Napi::Array::New(env, scan.found.size());
  for (uint32_t i = 0; i < scan.found.size(); i++) {
    const Descriptor& descriptor = scan.found[i];
    auto entry = Napi::Object::New(env);
    entry.Set("pid", Napi::Number::New(env, descriptor.pid));
    entry.Set("fd", Napi::Number::New(env, descriptor.fd));
    entry.Set("path", Napi::String::New(env, descriptor.path));
    const std::string rdev =
        std::string(1, descriptor.kind) + std::to_string(descriptor.major) + ":" + std::to_string(descriptor.minor);
    entry.Set("rdev", descriptor.kind ? Napi::String::New(env, rdev) : env.Undefined());
    found.Set(i, entry);
  }
  auto result = Napi::Object::New(env);
  result.Set("found", found);
  result.Set("hidden", Napi::Number::New(env, scan.hidden));
  return result;
}

}  // namespace vioctl::sysfs
