#include "vhost_user/blk.h"

#include "binding/core/values.h"
#include "binding/storage.h"
#include "binding/vhost_user.h"
#include "binding/vhost_user/queue.h"

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
  const auto options = info[3].As<Napi::Object>();
  const auto number = [&](const char* name) { return U32(Field(options, name, Kind::kUint32)); };
  const auto memory = MemoryOf(info[1]);
  const auto layout = LayoutOf(info[2]);
  BlkOptions blk{.store = Share<storage::Store>(info[0]),
                 .serial = Text(Field(options, "serial", Kind::kText)),
                 .io_uring = options.Get("ioUring").ToBoolean(),
                 .spin_us = number("spinUs"),
                 .seg_max = number("segMax"),
                 .max_sectors = number("maxSectors"),
                 .max_ranges = number("maxRanges"),
                 .queues = number("queues"),
                 .writeback = options.Get("writeback").ToBoolean()};
  const int kick = Field(options, "kick", Kind::kInt32).As<Napi::Number>();
  Fd call(Field(options, "call", Kind::kInt32).As<Napi::Number>());  // ours from here on
  auto queue = std::make_shared<std::unique_ptr<BlkQueue>>(
      std::make_unique<BlkQueue>(std::move(blk), memory, layout, kick, std::move(call)));
  const auto open = [queue]() -> BlkQueue& {
    if (!*queue) throw SysError(EINVAL, "blk", "the queue is closed");
    return **queue;
  };
  using Info = const Napi::CallbackInfo&;
  auto object = Napi::Object::New(env);
  SetMethod(object, "endedFd", [open](Info args) { return Napi::Number::New(args.Env(), open().ended_fd()); });
  SetMethod(object, "error", [open](Info args) { return Napi::String::New(args.Env(), open().error()); });
  SetMethod(object, "stats", [open](Info args) { return StatsObject(args.Env(), open().stats()); });
  SetMethod(object, "usesIoUring",
            [open](Info args) { return Napi::Boolean::New(args.Env(), open().uses_io_uring()); });
  SetMethod<Kind::kObject, Kind::kObject>(object, "remap", [open](Info args) {
    const auto next = MemoryOf(args[0]);
    const auto at = LayoutOf(args[1]);
    open().Remap(next, at);
  });
  SetMethod<Kind::kInt32>(object, "setCall", [open](Info args) { open().SetCall(Fd(args[0].As<Napi::Number>())); });
  SetMethod<Kind::kBoolean>(object, "setWriteback", [open](Info args) { open().SetWriteback(args[0].ToBoolean()); });
  SetMethod(object, "stop", [open](Info) { open().Stop(); });
  SetMethod(object, "close", [queue, open](Info args) {
    const uint32_t base = open().Join();
    queue->reset();
    return Napi::Number::New(args.Env(), base);
  });
  return object;
}

}  // namespace vioctl::vhost_user
