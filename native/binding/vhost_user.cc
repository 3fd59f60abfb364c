#include "binding/vhost_user.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>

#include <memory>

#include "binding/values.h"
#include "binding/vhost_user_queue.h"
#include "binding/watch.h"
#include "common/error.h"
#include "os/eventfd.h"
#include "os/mapping.h"
#include "os/memfd.h"
#include "os/socket.h"
#include "os/unix_sockets.h"
#include "vhost_user/memory.h"
#include "vhost_user/virtqueue.h"

namespace vioctl::vhost_user {
namespace {

// A native object behind a JavaScript one: an External that only our own functions unwrap, guarded by a type tag.
template <typename T>
struct Tagged {
  static const napi_type_tag tag;
};
template <>
const napi_type_tag Tagged<GuestMemory>::tag = {0x76696f63746c4d45, 0x76686f7374757301};

}  // namespace

Napi::Value JsConnect(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::Connect(info[0].As<Napi::String>()).Release());
}

Napi::Value JsListen(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), os::Listen(info[0].As<Napi::String>(), info[1].As<Napi::Number>(),
                                                  info[2].As<Napi::Number>().Uint32Value())
                                           .Release());
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
  auto handle = Napi::Object::New(env);
  handle.Set("close", Napi::Function::New(env, [watch](const Napi::CallbackInfo&) { watch->reset(); }));
  handle.Set("ref", Napi::Function::New(env, [watch](const Napi::CallbackInfo& args) {
               if (*watch) (*watch)->Ref(args[0].ToBoolean());
             }));
  return handle;
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
  const int64_t size = info[1].As<Napi::Number>().Int64Value();
  if (size < 0) throw SysError(EINVAL, "ftruncate");
  Fd fd = os::NewMemfd(Text(info[0]), static_cast<uint64_t>(size), MFD_ALLOW_SEALING);
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

Napi::Value JsMemory(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::vector<Region> regions;
  auto list = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    auto region = list.Get(i).As<Napi::Object>();
    regions.push_back(
        {U64(region.Get("gpa")), U64(region.Get("size")), U64(region.Get("uva")), U64(region.Get("offset"))});
  }
  auto memory = std::make_shared<std::shared_ptr<const GuestMemory>>();
  *memory = std::make_shared<const GuestMemory>(regions, Fds(info[1]));
  auto object = Napi::Object::New(env);
  auto external = Napi::External<std::shared_ptr<const GuestMemory>>::New(
      env, memory.get(), [memory](Napi::Env, std::shared_ptr<const GuestMemory>*) {});
  napi_type_tag_object(env, external, &Tagged<GuestMemory>::tag);
  object.Set("handle", external);
  object.Set("close", Napi::Function::New(env, [memory](const Napi::CallbackInfo&) { memory->reset(); }));
  object.Set("broken", Napi::Function::New(env, [memory](const Napi::CallbackInfo& args) {
               return Napi::Boolean::New(args.Env(), *memory && (*memory)->broken());
             }));
  object.Set("contains", Napi::Function::New(env, [memory](const Napi::CallbackInfo& args) {
               const uint64_t address = U64(args[0]), size = U64(args[1]);
               const bool physical = args[2].ToBoolean();
               const bool found = *memory && (physical ? (*memory)->Physical(address, size)
                                                       : (*memory)->Virtual(address, size)) != nullptr;
               return Napi::Boolean::New(args.Env(), found);
             }));
  return object;
}

std::shared_ptr<const GuestMemory> MemoryOf(const Napi::Value& value) {
  auto external = value.As<Napi::Object>().Get("handle");
  bool ours = false;
  if (external.IsExternal()) napi_check_object_type_tag(external.Env(), external, &Tagged<GuestMemory>::tag, &ours);
  if (!ours) throw SysError(EINVAL, "virtqueue", "not guest memory");
  auto memory = *external.As<Napi::External<std::shared_ptr<const GuestMemory>>>().Data();
  if (!memory) throw SysError(EBADF, "virtqueue", "guest memory is closed");
  return memory;
}

Virtqueue::Layout LayoutOf(const Napi::Value& value) {
  auto object = value.As<Napi::Object>();
  Virtqueue::Layout layout;
  layout.num = object.Get("num").As<Napi::Number>();
  layout.desc = U64(object.Get("desc"));
  layout.avail = U64(object.Get("avail"));
  layout.used = U64(object.Get("used"));
  layout.base = static_cast<uint16_t>(object.Get("base").As<Napi::Number>().Uint32Value());
  layout.features = U64(object.Get("features"));
  layout.physical = object.Get("physical").ToBoolean();
  return layout;
}

namespace {

// A queue that JavaScript serves: few requests, whose readable part is copied out and whose answer is copied in.
struct Served {
  Virtqueue queue;
  Chain chain;
  struct Held {
    Chain chain;
    std::shared_ptr<const GuestMemory> memory;  // that the chain points into; none while the head is not held
  };
  std::vector<Held> held;  // by head index
  uint32_t taken = 0;      // of them held
};
constexpr uint64_t kMaxCopy = 4096;  // bytes of a request's readable part that are copied
constexpr uint32_t kMaxTaken = 64;   // requests that JavaScript holds

Napi::Value Take(Napi::Env env, Served& served) {
  auto list = Napi::Array::New(env);
  uint32_t at = 0;
  for (bool asked = false; served.taken < kMaxTaken;) {
    const Pop pop = served.queue.Next(served.chain);
    if (pop == Pop::kBroken) throw SysError(EPROTO, "virtqueue", served.queue.error());
    if (pop == Pop::kEmpty) {
      if (asked) return list;
      served.queue.WantKicks(true);
      asked = true;
      continue;
    }
    const uint16_t head = served.chain.head;
    if (served.held[head].memory) throw SysError(EPROTO, "virtqueue", "a head index is made available twice");
    auto out = Napi::Buffer<uint8_t>::New(env, static_cast<size_t>(std::min(served.chain.out_size, kMaxCopy)));
    size_t done = 0;
    for (const iovec& part : served.chain.out) {
      const size_t size = std::min(part.iov_len, out.Length() - done);
      memcpy(out.Data() + done, part.iov_base, size);
      done += size;
    }
    auto request = Napi::Object::New(env);
    request.Set("head", static_cast<uint32_t>(head));
    request.Set("out", out);
    request.Set("inSize", static_cast<double>(served.chain.in_size));
    list.Set(at++, request);
    std::swap(served.held[head].chain, served.chain);
    served.held[head].memory = served.queue.memory();
    served.taken++;
  }
  return list;
}

Napi::Value Answer(Napi::Env env, Served& served, uint32_t head, const Napi::Uint8Array& answer) {
  if (head >= served.held.size() || !served.held[head].memory) throw SysError(EINVAL, "virtqueue", "head is not held");
  size_t done = 0;
  for (const iovec& part : served.held[head].chain.in) {
    const size_t size = std::min(part.iov_len, answer.ByteLength() - done);
    memcpy(part.iov_base, answer.Data() + done, size);
    done += size;
  }
  served.held[head] = {};
  served.taken--;
  served.queue.Put(static_cast<uint16_t>(head), static_cast<uint32_t>(done));
  return Napi::Boolean::New(env, served.queue.ShouldNotify());
}

}  // namespace

Napi::Value JsQueue(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto layout = LayoutOf(info[1]);
  auto served = std::make_shared<std::unique_ptr<Served>>(
      new Served{Virtqueue(MemoryOf(info[0]), layout), {}, std::vector<Served::Held>(layout.num), 0});
  const auto open = [served]() -> Served& {
    if (!*served) throw SysError(EBADF, "virtqueue", "closed");
    return **served;
  };
  auto object = Napi::Object::New(env);
  object.Set("take", Method(env, [open](const Napi::CallbackInfo& args) { return Take(args.Env(), open()); }));
  object.Set("answer", Method(env, [open](const Napi::CallbackInfo& args) {
               return Answer(args.Env(), open(), args[0].As<Napi::Number>(), args[1].As<Napi::Uint8Array>());
             }));
  object.Set("setMemory", Method(env, [open](const Napi::CallbackInfo& args) {
               open().queue.SetMemory(MemoryOf(args[0]), LayoutOf(args[1]));
               return args.Env().Undefined();
             }));
  object.Set("base", Method(env, [open](const Napi::CallbackInfo& args) -> Napi::Value {
               return Napi::Number::New(args.Env(), open().queue.base());
             }));
  object.Set("close", Method(env, [served](const Napi::CallbackInfo& args) {
               served->reset();
               return args.Env().Undefined();
             }));
  return object;
}

}  // namespace vioctl::vhost_user
