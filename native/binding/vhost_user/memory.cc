// Guest memory and what else a front-end shares, as handles of JavaScript.
#include <memory>
#include <utility>

#include "binding/core/call.h"
#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "binding/vhost_user.h"
#include "binding/vhost_user/queue.h"
#include "common/error.h"

namespace vioctl {

template <typename T>
struct Cell;
template <>
inline constexpr const char* kHandleName<Cell<vhost_user::GuestMemory>> = "guest memory";
template <>
inline constexpr const char* kHandleName<Cell<vhost_user::InflightRegion>> = "in-flight region";
template <>
inline constexpr const char* kHandleName<Cell<vhost_user::DirtyLog>> = "dirty log";

// What an object with a handle and close() holds; empty once closed.
template <typename T>
struct Cell {
  std::shared_ptr<const T> value;
  std::shared_ptr<const T> Open() const {
    if (!value) throw SysError(EINVAL, kHandleName<Cell>, "the handle is closed");
    return value;
  }
};

}  // namespace vioctl

namespace vioctl::vhost_user {
namespace {

// An object with the handle and close(), and what the handle refers to until then.
template <typename T>
std::pair<Napi::Object, std::shared_ptr<Cell<T>>> Handle(Napi::Env env, std::shared_ptr<const T> value) {
  auto cell = std::make_shared<Cell<T>>(Cell<T>{std::move(value)});
  auto object = Napi::Object::New(env);
  object.Set("handle", NewHandle(env, cell));
  SetMethod(object, "close", [cell](const Napi::CallbackInfo&) { cell->value.reset(); });
  return {object, cell};
}

// What is behind such an object. Throws SysError EINVAL for another object, and once it is closed.
template <typename T>
std::shared_ptr<const T> HandleOf(const Napi::Value& value) {
  CheckKind(value, Kind::kObject, kHandleName<Cell<T>>);
  return Share<Cell<T>>(value.As<Napi::Object>().Get("handle"))->Open();
}

}  // namespace

Napi::Value JsMemory(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::vector<Region> regions;
  auto list = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto region = Item(list, i, Kind::kObject).As<Napi::Object>();
    const auto word = [&](const char* name) { return U64(Field(region, name, Kind::kUint64)); };
    regions.push_back({word("gpa"), word("size"), word("uva"), word("offset")});
  }
  auto [object, memory] = Handle(env, std::make_shared<const GuestMemory>(regions, Fds(info[1])));
  SetMethod(object, "broken", [memory = memory](const Napi::CallbackInfo& args) {
    return Napi::Boolean::New(args.Env(), memory->Open()->broken());
  });
  SetMethod<Kind::kUint64, Kind::kUint64, Kind::kBoolean>(
      object, "contains", [memory = memory](const Napi::CallbackInfo& args) {
        const uint64_t address = U64(args[0]), size = U64(args[1]);
        const auto open = memory->Open();
        const bool found =
            (args[2].ToBoolean() ? open->Physical(address, size) : open->Virtual(address, size)) != nullptr;
        return Napi::Boolean::New(args.Env(), found);
      });
  return object;
}

std::shared_ptr<const GuestMemory> MemoryOf(const Napi::Value& value) { return HandleOf<GuestMemory>(value); }

Napi::Value JsInflightBytes(const Napi::CallbackInfo& info) {
  return Number(info.Env(), InflightRegion::QueueBytes(U32(info[0])));
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
  CheckKind(value, Kind::kObject, "layout");
  const auto object = value.As<Napi::Object>();
  const auto word = [&](const char* name) { return U64(Field(object, name, Kind::kUint64)); };
  const auto small = [&](const char* name) { return U32(Field(object, name, Kind::kUint32)); };
  const auto given = [&](const char* name, Kind kind) {
    const Napi::Value field = Field(object, name, Maybe(kind));
    return !field.IsUndefined() && !field.IsNull();
  };
  Virtqueue::Layout layout;
  layout.num = small("num");
  layout.desc = word("desc");
  layout.avail = word("avail");
  layout.used = word("used");
  layout.base = small("base");
  layout.features = word("features");
  layout.physical = object.Get("physical").ToBoolean();
  if (given("index", Kind::kUint32)) layout.index = small("index");
  if (given("inflight", Kind::kObject)) layout.inflight = HandleOf<InflightRegion>(object.Get("inflight"));
  if (given("log", Kind::kObject)) layout.log = HandleOf<DirtyLog>(object.Get("log"));
  layout.log_used = object.Get("logUsed").ToBoolean();
  if (given("logAddress", Kind::kUint64)) layout.log_address = word("logAddress");
  return layout;
}

}  // namespace vioctl::vhost_user
