#include "binding/nvme_host.h"

#include <memory>

#include "binding/call.h"
#include "binding/values.h"
#include "nvme/initiator.h"

namespace vioctl::nvme {
namespace {

// Runs the load in a thread of libuv's pool; the queues have threads of their own below it.
class Job : public Napi::AsyncWorker {
 public:
  Job(Napi::Env env, LoadOptions options, std::shared_ptr<std::atomic<bool>> stop)
      : Napi::AsyncWorker(env),
        done_(Napi::Promise::Deferred::New(env)),
        options_(std::move(options)),
        stop_(std::move(stop)) {}
  Napi::Promise promise() const { return done_.Promise(); }

 protected:
  void Execute() override {
    try {
      result_ = Run(options_, *stop_);
    } catch (const SysError& error) {
      error_ = std::make_unique<SysError>(error);
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    Napi::Env env = Env();
    if (error_) {
      done_.Reject(ToJs(env, *error_).Value());
      return;
    }
    Napi::Object o = Napi::Object::New(env);
    auto number = [&](const char* name, auto value) {
      o.Set(name, Napi::Number::New(env, static_cast<double>(value)));
    };
    number("reads", result_.reads);
    number("writes", result_.writes);
    number("errors", result_.errors);
    number("firstError", result_.first_error);
    number("seconds", result_.seconds);
    number("minNs", result_.latency.min());
    number("meanNs", result_.latency.mean());
    number("maxNs", result_.latency.max());
    Napi::Float64Array percentiles = Napi::Float64Array::New(env, std::size(kParts));
    for (size_t i = 0; i < std::size(kParts); i++)
      percentiles[i] = static_cast<double>(result_.latency.Percentile(kParts[i]));
    o.Set("percentilesNs", percentiles);
    done_.Resolve(o);
  }
  void OnError(const Napi::Error& error) override { done_.Reject(error.Value()); }

 private:
  static constexpr double kParts[] = {0.5, 0.9, 0.95, 0.99, 0.999, 0.9999};
  Napi::Promise::Deferred done_;
  LoadOptions options_;
  std::shared_ptr<std::atomic<bool>> stop_;
  LoadResult result_;
  std::unique_ptr<SysError> error_;
};

LoadOptions Options(const Napi::Object& o) {
  auto number = [&](const char* name) { return o.Get(name).As<Napi::Number>().Int64Value(); };
  auto flag = [&](const char* name) { return o.Get(name).As<Napi::Boolean>().Value(); };
  auto text = [&](const char* name) { return Text(o.Get(name)); };
  LoadOptions options;
  options.address = text("address");
  options.port = static_cast<int>(number("port"));
  options.hostnqn = text("hostnqn");
  options.subnqn = text("subnqn");
  auto id = o.Get("hostid").As<Napi::Uint8Array>();
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
  options.first = U64(o.Get("first"));
  options.blocks = U64(o.Get("blocks"));
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
  auto stop = std::make_shared<std::atomic<bool>>(false);
  auto* job = new Job(env, Options(info[0].As<Napi::Object>()), stop);  // deletes itself when done
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("done", job->promise());
  handle.Set("stop", Napi::Function::New(env, [stop](const Napi::CallbackInfo&) { stop->store(true); }));
  job->Queue();
  return handle;
}

}  // namespace vioctl::nvme
