// Guest memory and what else a front-end shares, as handles of JavaScript.
#include <memory>
#include <utility>

#include "binding/values.h"
#include "binding/vhost_user.h"
#include "binding/vhost_user_queue.h"
#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

// A native object behind a JavaScript one: an External that only our own functions unwrap, guarded by a type tag.
template <typename T>
struct Tagged {
  static const napi_type_tag tag;
};
template <>
const napi_type_tag Tagged<GuestMemory>::tag = {0x76696f63746c4d45, 0x76686f7374757301};
template <>
const napi_type_tag Tagged<InflightRegion>::tag = {0x76696f63746c4d45, 0x76686f7374757303};
template <>
const napi_type_tag Tagged<DirtyLog>::tag = {0x76696f63746c4d45, 0x76686f7374757304};

template <typename T>
using Shared = std::shared_ptr<const T>;

// An object with the handle and close(), and what the handle refers to until then.
template <typename T>
std::pair<Napi::Object, std::shared_ptr<Shared<T>>> Handle(Napi::Env env, Shared<T> value) {
  auto held = std::make_shared<Shared<T>>(std::move(value));
  auto object = Napi::Object::New(env);
  auto external = Napi::External<Shared<T>>::New(env, held.get(), [held](Napi::Env, Shared<T>*) {});
  napi_type_tag_object(env, external, &Tagged<T>::tag);
  object.Set("handle", external);
  object.Set("close", Napi::Function::New(env, [held](const Napi::CallbackInfo&) { held->reset(); }));
  return {object, held};
}

// What is behind such an object. Throws SysError: EINVAL for another object, EBADF once it is closed.
template <typename T>
Shared<T> HandleOf(const Napi::Value& value) {
  const Napi::Value external = value.IsObject() ? value.As<Napi::Object>().Get("handle") : value.Env().Undefined();
  bool ours = false;
  if (external.IsExternal()) napi_check_object_type_tag(external.Env(), external, &Tagged<T>::tag, &ours);
  if (!ours) throw SysError(EINVAL, "vring", "a handle of another kind");
  Shared<T> held = *external.As<Napi::External<Shared<T>>>().Data();
  if (!held) throw SysError(EBADF, "vring", "the handle is closed");
  return held;
}

}  // namespace

Napi::Value JsMemory(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::vector<Region> regions;
  auto list = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    auto region = list.Get(i).As<Napi::Object>();
    regions.push_back(
        {U64(region.Get("gpa")), U64(region.Get("size")), U64(region.Get("uva")), U64(region.Get("offset"))});
  }
  auto [object, memory] = Handle(env, std::make_shared<const GuestMemory>(regions, Fds(info[1])));
  object.Set("broken", Napi::Function::New(env, [memory = memory](const Napi::CallbackInfo& args) {
               return Napi::Boolean::New(args.Env(), *memory && (*memory)->broken());
             }));
  object.Set("contains", Napi::Function::New(env, [memory = memory](const Napi::CallbackInfo& args) {
               const uint64_t address = U64(args[0]), size = U64(args[1]);
               const bool physical = args[2].ToBoolean();
               const bool found = *memory && (physical ? (*memory)->Physical(address, size)
                                                       : (*memory)->Virtual(address, size)) != nullptr;
               return Napi::Boolean::New(args.Env(), found);
             }));
  return object;
}

std::shared_ptr<const GuestMemory> MemoryOf(const Napi::Value& value) { return HandleOf<GuestMemory>(value); }

Napi::Value JsInflightBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(InflightRegion::QueueBytes(U32(info[0]))));
}

Napi::Value JsInflight(const Napi::CallbackInfo& info) {
  return Handle(info.Env(), std::make_shared<const InflightRegion>(info[0].As<Napi::Number>(), U64(info[1]),
                                                                   U64(info[2]), U32(info[3]), U32(info[4])))
      .first;
}

Napi::Value JsDirtyLog(const Napi::CallbackInfo& info) {
  return Handle(info.Env(), std::make_shared<const DirtyLog>(info[0].As<Napi::Number>(), U64(info[1]), U64(info[2])))
      .first;
}

Virtqueue::Layout LayoutOf(const Napi::Value& value) {
  auto object = value.As<Napi::Object>();
  Virtqueue::Layout layout;
  layout.num = object.Get("num").As<Napi::Number>();
  layout.desc = U64(object.Get("desc"));
  layout.avail = U64(object.Get("avail"));
  layout.used = U64(object.Get("used"));
  layout.base = U32(object.Get("base"));
  layout.features = U64(object.Get("features"));
  layout.physical = object.Get("physical").ToBoolean();
  if (object.Get("index").IsNumber()) layout.index = U32(object.Get("index"));
  if (object.Get("inflight").IsObject()) layout.inflight = HandleOf<InflightRegion>(object.Get("inflight"));
  if (object.Get("log").IsObject()) layout.log = HandleOf<DirtyLog>(object.Get("log"));
  layout.log_used = object.Get("logUsed").ToBoolean();
  if (object.Get("logAddress").IsBigInt()) layout.log_address = U64(object.Get("logAddress"));
  return layout;
}

}  // namespace vioctl::vhost_user
