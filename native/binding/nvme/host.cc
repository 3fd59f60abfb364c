#include "binding/nvme/host.h"

#include <memory>

#include "binding/core/async.h"
#include "binding/core/call.h"
#include "binding/core/values.h"
#include "nvme/initiator.h"

namespace vioctl::nvme {
namespace {

constexpr double kParts[] = {0.5, 0.9, 0.95, 0.99, 0.999, 0.9999};

Napi::Value ResultObject(Napi::Env env, const LoadResult& result) {
  Napi::Object o = Napi::Object::New(env);
  auto number = [&](const char* name, auto value) { o.Set(name, Napi::Number::New(env, static_cast<double>(value))); };
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
  return o;
}

LoadOptions Options(const Napi::Object& o) {
  auto number = [&](const char* name) { return Field(o, name, Kind::kInteger).As<Napi::Number>().Int64Value(); };
  auto flag = [&](const char* name) { return Field(o, name, Kind::kBoolean).As<Napi::Boolean>().Value(); };
  auto text = [&](const char* name) { return Text(Field(o, name, Kind::kPath)); };
  LoadOptions options;
  options.address = text("address");
  options.port = static_cast<int>(number("port"));
  options.hostnqn = text("hostnqn");
  options.subnqn = text("subnqn");
  auto id = Field(o, "hostid", Kind::kBytes).As<Napi::Uint8Array>();
  if (id.ByteLength() != options.hostid.size()) throw SysError(EINVAL, "loadRun", "hostid");
  memcpy(options.hostid.data(), id.Data(), options.hostid.size());
  options.cntlid = static_cast<uint16_t>(number("cntlid"));
  options.queues = static_cast<int>(number("queues"));
  options.threads = static_cast<int>(number("threads"));
  options.depth = static_cast<int>(number("depth"));
  options.entries = static_cast<int>(number("entries"));
  options.header_digest = flag("headerDigest");
  options.data_digest = flag("dataDigest");
  options.flow_control = flag("flowControl");
  options.nsid = static_cast<uint32_t>(number("nsid"));
  options.block_size = static_cast<uint32_t>(number("blockSize"));
  options.io_blocks = static_cast<uint32_t>(number("ioBlocks"));
  options.in_capsule = static_cast<uint32_t>(number("inCapsule"));
  options.first = U64(Field(o, "first", Kind::kUint64));
  options.blocks = U64(Field(o, "blocks", Kind::kUint64));
  options.read_percent = static_cast<int>(number("readPercent"));
  options.random = flag("random");
  options.duration_ms = static_cast<uint64_t>(number("durationMs"));
  options.warmup_ms = static_cast<uint64_t>(number("warmupMs"));
  options.timeout_ms = static_cast<uint64_t>(number("timeoutMs"));
  options.spin_us = static_cast<uint64_t>(number("spinUs"));
  options.seed = static_cast<uint64_t>(number("seed"));
  if (options.queues < 1 || options.depth < 1 || options.depth >= options.entries || options.entries > 65536 ||
      options.io_blocks < 1 || options.io_blocks > 65536 || options.block_size < 512 || options.block_size > 1 << 20 ||
      static_cast<uint64_t>(options.io_blocks) * options.block_size > 64 << 20 || options.blocks < options.io_blocks)
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
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("done", RunAsync(
                         env, [options, stop, result] { *result = Run(*options, *stop); },
                         [result](Napi::Env in) { return ResultObject(in, *result); }, [stop] { stop->store(true); }));
  SetMethod(handle, "stop", [stop](const Napi::CallbackInfo&) { stop->store(true); });
  return handle;
}

}  // namespace vioctl::nvme
