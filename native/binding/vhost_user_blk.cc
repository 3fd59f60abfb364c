#include "binding/storage.h"
#include "binding/vhost_user.h"
#include "binding/vhost_user_queue.h"
#include "vhost_user/blk.h"

namespace vioctl::vhost_user {
namespace {

Napi::Object StatsObject(Napi::Env env, const BlkStats& stats) {
  auto object = Napi::Object::New(env);
  const auto set = [&](const char* name, const std::atomic<uint64_t>& value) {
    object.Set(name, static_cast<double>(value.load(std::memory_order_relaxed)));
  };
  set("reads", stats.reads);
  set("writes", stats.writes);
  set("flushes", stats.flushes);
  set("others", stats.others);
  set("errors", stats.errors);
  set("bytesRead", stats.bytes_read);
  set("bytesWritten", stats.bytes_written);
  return object;
}

}  // namespace

Napi::Value JsBlkQueue(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto options = info[3].As<Napi::Object>();
  Fd call(options.Get("call").As<Napi::Number>());
  const auto number = [&](const char* name) { return options.Get(name).As<Napi::Number>().Uint32Value(); };
  BlkOptions blk{.store = storage::StoreOf(info[0]),
                 .serial = options.Get("serial").As<Napi::String>(),
                 .io_uring = options.Get("ioUring").ToBoolean(),
                 .seg_max = number("segMax"),
                 .max_sectors = number("maxSectors"),
                 .max_ranges = number("maxRanges"),
                 .queues = number("queues")};
  auto queue = std::make_shared<std::unique_ptr<BlkQueue>>(std::make_unique<BlkQueue>(
      std::move(blk), MemoryOf(info[1]), LayoutOf(info[2]), options.Get("kick").As<Napi::Number>(), std::move(call)));
  const auto open = [queue]() -> BlkQueue& {
    if (!*queue) throw SysError(EBADF, "blk", "the queue is closed");
    return **queue;
  };
  auto object = Napi::Object::New(env);
  object.Set("endedFd", Method(env, [open](const Napi::CallbackInfo& args) -> Napi::Value {
               return Napi::Number::New(args.Env(), open().ended_fd());
             }));
  object.Set("error", Method(env, [open](const Napi::CallbackInfo& args) -> Napi::Value {
               return Napi::String::New(args.Env(), open().error());
             }));
  object.Set("stats", Method(env, [open](const Napi::CallbackInfo& args) -> Napi::Value {
               return StatsObject(args.Env(), open().stats());
             }));
  object.Set("usesIoUring", Method(env, [open](const Napi::CallbackInfo& args) -> Napi::Value {
               return Napi::Boolean::New(args.Env(), open().uses_io_uring());
             }));
  object.Set("remap", Method(env, [open](const Napi::CallbackInfo& args) {
               open().Remap(MemoryOf(args[0]), LayoutOf(args[1]));
               return args.Env().Undefined();
             }));
  object.Set("setCall", Method(env, [open](const Napi::CallbackInfo& args) {
               open().SetCall(Fd(args[0].As<Napi::Number>()));
               return args.Env().Undefined();
             }));
  object.Set("stop", Method(env, [open](const Napi::CallbackInfo& args) {
               open().Stop();
               return args.Env().Undefined();
             }));
  object.Set("close", Method(env, [queue, open](const Napi::CallbackInfo& args) -> Napi::Value {
               const uint32_t base = open().Join();
               queue->reset();
               return Napi::Number::New(args.Env(), base);
             }));
  return object;
}

}  // namespace vioctl::vhost_user
