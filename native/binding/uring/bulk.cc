#include "uring/bulk.h"

#include <memory>

#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "binding/core/watch.h"
#include "binding/uring.h"
#include "common/error.h"
#include "os/eventfd.h"

namespace vioctl::uring::js {

struct JsBulk;
struct Running;

}  // namespace vioctl::uring::js

namespace vioctl {

template <>
inline constexpr const char* kHandleName<uring::js::JsBulk> = "bulk";
template <>
inline constexpr const char* kHandleName<uring::js::Running> = "digest";

}  // namespace vioctl

namespace vioctl::uring::js {

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

// A checksum that JavaScript computes.
struct Running {
  explicit Running(const Algorithm& algorithm) : digest(algorithm), size(algorithm.size) { digest.Start(); }
  Digest digest;
  uint32_t size;
};

Napi::Value DigestSize(const Napi::CallbackInfo& info) {
  const Algorithm* algorithm = FindAlgorithm(Text(info[0]));
  return Napi::Number::New(info.Env(), algorithm ? algorithm->size : 0);
}

Napi::Value DigestNew(const Napi::CallbackInfo& info) {
  const std::string name = Text(info[0]);
  const Algorithm* algorithm = FindAlgorithm(name);
  if (algorithm == nullptr) throw SysError(EOPNOTSUPP, "digest", name);
  return NewHandle(info.Env(), std::make_shared<Running>(*algorithm));
}

Napi::Value DigestUpdate(const Napi::CallbackInfo& info) {
  const auto bytes = Bytes(info[1]);
  Get<Running>(info[0]).digest.Update(bytes.data(), bytes.size());
  return info.Env().Undefined();
}

Napi::Value DigestFinish(const Napi::CallbackInfo& info) {
  Running& running = Get<Running>(info[0]);
  auto out = Napi::Buffer<uint8_t>::New(info.Env(), running.size);
  const bool computed = running.digest.Finish(out.Data());
  running.digest.Start();
  if (!computed) throw SysError(ENOMEM, "digest");
  return out;
}

Napi::Value BulkOpen(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  BulkOptions options;
  const uint32_t work = U32(Field(given, "work", Kind::kUint32));
  if (work > static_cast<uint32_t>(BulkWork::kDataSync)) throw SysError(EINVAL, "bulk", "work");
  options.work = static_cast<BulkWork>(work);
  options.plain = given.Get("plain").ToBoolean();
  options.threads = U32(Field(given, "threads", Kind::kUint32));
  options.depth = U32(Field(given, "depth", Kind::kUint32));
  if (options.work == BulkWork::kSum) {
    const std::string name = Text(Field(given, "algorithm", Kind::kText));
    options.algorithm = FindAlgorithm(name);
    if (options.algorithm == nullptr) throw SysError(EOPNOTSUPP, "bulk", name);
  }
  return NewHandle(info.Env(), JsBulk::Make(info.Env(), options, info[1].As<Napi::Function>()));
}

Napi::Value BulkPush(const Napi::CallbackInfo& info) {
  const auto names = info[1].As<Napi::Uint8Array>();
  Get<JsBulk>(info[0]).bulk->Push(reinterpret_cast<const char*>(names.Data()), names.ByteLength(), U32(info[2]));
  return info.Env().Undefined();
}

Napi::Value BulkTake(const Napi::CallbackInfo& info) {
  auto to = info[1].As<Napi::Uint8Array>();
  const auto limit = static_cast<uint32_t>(to.ByteLength() / sizeof(BulkResult));
  return Napi::Number::New(info.Env(),
                           Get<JsBulk>(info[0]).bulk->Take(reinterpret_cast<BulkResult*>(to.Data()), limit));
}

Napi::Value BulkStats(const Napi::CallbackInfo& info) {
  const uring::BulkStats stats = Get<JsBulk>(info[0]).bulk->Stats();
  auto result = Napi::Object::New(info.Env());
  result.Set("enters", Number(info.Env(), stats.enters));
  result.Set("overflows", Number(info.Env(), stats.overflows));
  result.Set("bytes", Number(info.Env(), stats.bytes));
  return result;
}

Napi::Value BulkClose(const Napi::CallbackInfo& info) {
  if (const auto bulk = TakeFrom<JsBulk>(info[0])) {
    // At once, also from inside the callback, which holds the rest.
    bulk->watch.reset();
    bulk->bulk.reset();
  }
  return info.Env().Undefined();
}

}  // namespace vioctl::uring::js
