#include "binding/nvme/host.h"

#include <memory>
#include <optional>

#include "binding/core/async.h"
#include "binding/core/call.h"
#include "binding/core/values.h"
#include "binding/nvme/namespace.h"
#include "nvme/host/load.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint32_t kMaxBlocks = 65'536, kMaxBlockSize = 1 << 20, kMaxIo = 64 << 20;
constexpr double kParts[] = {0.5, 0.9, 0.95, 0.99, 0.999, 0.9999};

Napi::Value ResultObject(Napi::Env env, const LoadResult& result) {
  Napi::Object o = Napi::Object::New(env);
  auto number = [&](const char* name, auto value) { o.Set(name, Napi::Number::New(env, static_cast<double>(value))); };
  number("queues", result.queues);
  number("reads", result.reads);
  number("writes", result.writes);
  number("errors", result.errors);
  number("firstError", result.first_error);
  number("seconds", result.seconds);
  number("minNs", result.latency.min());
  number("meanNs", result.latency.mean());
  number("maxNs", result.latency.max());
  Napi::Float64Array percentiles = Napi::Float64Array::New(env, std::size(kParts));
  for (size_t i = 0; i < std::size(kParts); i++)
    percentiles[i] = static_cast<double>(result.latency.Percentile(kParts[i]));
  o.Set("percentilesNs", percentiles);
  const auto buckets = result.latency.Buckets();
  Napi::Float64Array histogram = Napi::Float64Array::New(env, 3 * buckets.size());
  size_t next = 0;
  for (const auto& [from, to, count] : buckets)
    for (const uint64_t value : {from, to, uint64_t{count}}) histogram[next++] = static_cast<double>(value);
  o.Set("histogramNs", histogram);
  return o;
}

LoadOptions Options(const Napi::Object& o) {
  const auto number = [&](const char* name) { return U32(Field(o, name, Kind::kUint32)); };
  NamespaceOptions host = OptionsOf(o);
  LoadOptions options;
  options.address = host.addresses.front();
  options.host = std::move(host);
  options.threads = number("threads");
  options.depth = number("depth");
  options.nsid = number("nsid");
  options.block_size = number("blockSize");
  options.io_blocks = number("ioBlocks");
  options.first = U64(Field(o, "first", Kind::kUint64));
  options.blocks = U64(Field(o, "blocks", Kind::kUint64));
  options.read_percent = static_cast<int>(number("readPercent"));
  options.random = Field(o, "random", Kind::kBoolean).As<Napi::Boolean>();
  options.duration_ms = number("durationMs");
  options.warmup_ms = number("warmupMs");
  options.spin_us = number("spinUs");
  options.seed = number("seed");
  if (options.depth < 1 || options.depth >= options.host.entries || options.io_blocks < 1 ||
      options.io_blocks > kMaxBlocks || options.block_size < 512 || options.block_size > kMaxBlockSize ||
      static_cast<uint64_t>(options.io_blocks) * options.block_size > kMaxIo || options.blocks < options.io_blocks)
    throw SysError(EINVAL, "loadRun", "options");
  return options;
}

}  // namespace

Napi::Value LoadRun(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  // The queues have threads of their own below the one of the pool.
  auto options = std::make_shared<const LoadOptions>(Options(info[0].As<Napi::Object>()));
  auto stop = std::make_shared<std::atomic<bool>>(false);
  auto result = std::make_shared<LoadResult>();
  auto refused = std::make_shared<std::optional<CommandError>>();
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("done", RunAsync(
                         env,
                         [options, stop, result, refused] {
                           try {
                             *result = Run(*options, *stop);
                           } catch (const CommandError& error) {
                             *refused = error;
                           }
                         },
                         [result, refused](Napi::Env in) -> Napi::Value {
                           if (*refused) throw Refused(in, **refused);
                           return ResultObject(in, *result);
                         },
                         [stop] { stop->store(true); }));
  SetMethod(handle, "stop", [stop](const Napi::CallbackInfo&) { stop->store(true); });
  return handle;
}

}  // namespace vioctl::nvme::host
