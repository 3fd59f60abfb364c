#include <memory>

#include "binding/uring.h"
#include "binding/values.h"
#include "binding/watch.h"
#include "common/error.h"
#include "os/eventfd.h"
#include "uring/bulk.h"

namespace vioctl::uring::js {
namespace {

// The threads, and the watch that tells JavaScript of their results.
struct JsBulk {
  JsBulk(Napi::Env env, const BulkOptions& options, const Napi::Function& ready)
      : bulk(std::make_unique<Bulk>(options)), callback(Napi::Persistent(ready)), context(env, "vioctl:uring-bulk") {}

  static std::shared_ptr<JsBulk> Make(Napi::Env env, const BulkOptions& options, const Napi::Function& ready) {
    auto made = std::make_shared<JsBulk>(env, options, ready);
    made->watch = std::make_unique<vioctl::Watch>(env, made->bulk->eventfd(), [env, weak = std::weak_ptr(made)] {
      const auto self = weak.lock();  // its callback may close it
      os::TakeEventfd(self->bulk->eventfd());
      self->callback.MakeCallback(env.Global(), {}, self->context);
    });
    return made;
  }

  std::unique_ptr<Bulk> bulk;
  Napi::FunctionReference callback;
  Napi::AsyncContext context;
  std::unique_ptr<vioctl::Watch> watch;  // goes first: its descriptor is the bulk's
};

// What JavaScript holds; empty once closed.
using Handle = std::shared_ptr<JsBulk>;

Handle& HandleOf(const Napi::CallbackInfo& info) { return *info[0].As<Napi::External<Handle>>().Data(); }

JsBulk& Open(Handle& handle) {
  if (!handle) throw SysError(EBADF, "bulk", "closed");
  return *handle;
}

// A checksum that JavaScript computes.
struct Running {
  explicit Running(const Algorithm& algorithm) : digest(algorithm), size(algorithm.size) { digest.Start(); }
  Digest digest;
  uint32_t size;
};

}  // namespace

Napi::Value DigestSize(const Napi::CallbackInfo& info) {
  const Algorithm* algorithm = FindAlgorithm(Text(info[0]));
  return Napi::Number::New(info.Env(), algorithm ? algorithm->size : 0);
}

Napi::Value DigestNew(const Napi::CallbackInfo& info) {
  const std::string name = Text(info[0]);
  const Algorithm* algorithm = FindAlgorithm(name);
  if (algorithm == nullptr) throw SysError(EOPNOTSUPP, "digest", name);
  auto running = std::make_unique<Running>(*algorithm);
  auto external =
      Napi::External<Running>::New(info.Env(), running.get(), [](Napi::Env, Running* data) { delete data; });
  running.release();
  return external;
}

Napi::Value DigestUpdate(const Napi::CallbackInfo& info) {
  const auto bytes = info[1].As<Napi::Uint8Array>();
  info[0].As<Napi::External<Running>>().Data()->digest.Update(bytes.Data(), bytes.ByteLength());
  return info.Env().Undefined();
}

Napi::Value DigestFinish(const Napi::CallbackInfo& info) {
  Running& running = *info[0].As<Napi::External<Running>>().Data();
  auto out = Napi::Buffer<uint8_t>::New(info.Env(), running.size);
  const bool computed = running.digest.Finish(out.Data());
  running.digest.Start();
  if (!computed) throw SysError(ENOMEM, "digest");
  return out;
}

Napi::Value BulkOpen(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  BulkOptions options;
  options.work = static_cast<BulkWork>(U32(given.Get("work")));
  options.plain = given.Get("plain").ToBoolean();
  options.threads = U32(given.Get("threads"));
  options.depth = U32(given.Get("depth"));
  if (options.work == BulkWork::kSum) {
    const std::string name = Text(given.Get("algorithm"));
    options.algorithm = FindAlgorithm(name);
    if (options.algorithm == nullptr) throw SysError(EOPNOTSUPP, "bulk", name);
  }
  auto handle = std::make_unique<Handle>(JsBulk::Make(info.Env(), options, info[1].As<Napi::Function>()));
  auto external = Napi::External<Handle>::New(info.Env(), handle.get(), [](Napi::Env, Handle* data) { delete data; });
  handle.release();
  return external;
}

Napi::Value BulkPush(const Napi::CallbackInfo& info) {
  const auto names = info[1].As<Napi::Uint8Array>();
  Open(HandleOf(info)).bulk->Push(reinterpret_cast<const char*>(names.Data()), names.ByteLength(), U32(info[2]));
  return info.Env().Undefined();
}

Napi::Value BulkTake(const Napi::CallbackInfo& info) {
  auto to = info[1].As<Napi::Uint8Array>();
  const auto limit = static_cast<uint32_t>(to.ByteLength() / sizeof(BulkResult));
  return Napi::Number::New(info.Env(),
                           Open(HandleOf(info)).bulk->Take(reinterpret_cast<BulkResult*>(to.Data()), limit));
}

Napi::Value BulkStats(const Napi::CallbackInfo& info) {
  const uring::BulkStats stats = Open(HandleOf(info)).bulk->Stats();
  auto result = Napi::Object::New(info.Env());
  result.Set("enters", Napi::Number::New(info.Env(), static_cast<double>(stats.enters)));
  result.Set("overflows", Napi::Number::New(info.Env(), static_cast<double>(stats.overflows)));
  return result;
}

Napi::Value BulkClose(const Napi::CallbackInfo& info) {
  Handle& handle = HandleOf(info);
  if (handle) {
    // At once, also from inside the callback, which holds the rest.
    handle->watch.reset();
    handle->bulk.reset();
    handle.reset();
  }
  return info.Env().Undefined();
}

}  // namespace vioctl::uring::js
