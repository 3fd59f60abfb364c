#include "binding/storage.h"

#include <algorithm>

#include "binding/core/answers.h"
#include "binding/core/values.h"
#include "storage/io.h"
#include "uring/refusal.h"

namespace vioctl::storage {
namespace {

constexpr uint32_t kMaxPeek = 1 << 20;

constexpr uint32_t kMaxBurstSeconds = 3600;

Rate RateOf(const Napi::Object& limits, const char* name) {
  const Napi::Value value = Field(limits, name, Maybe(Kind::kObject));
  if (!value.IsObject()) return {};
  const auto given = value.As<Napi::Object>();
  Rate rate;
  rate.average = U64(Field(given, "average", Kind::kUint64));
  rate.burst = U64(Field(given, "burst", Kind::kUint64));
  rate.seconds = U32(Field(given, "seconds", Kind::kUint32));
  if (rate.average == 0 || (rate.burst != 0 && rate.burst < rate.average) || rate.seconds == 0 ||
      rate.seconds > kMaxBurstSeconds)
    throw SysError(EINVAL, "limit", name);
  return rate;
}

Napi::Value RateObject(Napi::Env env, const Rate& rate) {
  if (rate.average == 0) return env.Undefined();
  auto object = Napi::Object::New(env);
  object.Set("average", Number(env, rate.average));
  object.Set("burst", Number(env, rate.burst));
  object.Set("seconds", rate.seconds);
  return object;
}

}  // namespace

Napi::Value JsOpen(const Napi::CallbackInfo& info) {
  const auto given = info[1].As<Napi::Object>();
  FileOptions options;
  options.readonly = given.Get("readonly").ToBoolean();
  options.shared = given.Get("shared").ToBoolean();
  options.force = given.Get("force").ToBoolean();
  options.direct = given.Get("direct").ToBoolean();
  if (const Napi::Value claim = given.Get("claim"); claim.IsBoolean()) options.claim = claim.ToBoolean();
  if (const Napi::Value mode = Field(given, "zero", Maybe(Kind::kText)); mode.IsString()) {
    const std::string zero = Text(mode);
    options.zero = zero == "unmap" ? ZeroMode::kUnmap : zero == "off" ? ZeroMode::kWrite : ZeroMode::kHoles;
  }
  return NewHandle(info.Env(), OpenFile(info[0].As<Napi::String>(), options));
}

Napi::Value JsRam(const Napi::CallbackInfo& info) { return NewHandle(info.Env(), OpenRam(U64(info[0]))); }

Napi::Value JsSize(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Store>(info[0]).size()); }

Napi::Value JsRefresh(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Store>(info[0]).Refresh()); }

Napi::Value JsGeometry(const Napi::CallbackInfo& info) {
  const Geometry geometry = Get<Store>(info[0]).geometry();
  auto object = Napi::Object::New(info.Env());
  object.Set("logical", geometry.logical);
  object.Set("physical", geometry.physical);
  object.Set("minimumIo", geometry.minimum_io);
  object.Set("optimalIo", geometry.optimal_io);
  object.Set("alignmentOffset", geometry.alignment_offset);
  object.Set("atomicWrite", geometry.atomic_write);
  object.Set("directMemory", geometry.direct_memory);
  object.Set("directOffset", geometry.direct_offset);
  object.Set("rotational", geometry.rotational);
  object.Set("device", geometry.device);
  object.Set("readonly", geometry.readonly);
  return object;
}

Napi::Value JsIdentity(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto identity = Get<Store>(info[0]).identity();
  if (!identity) return env.Undefined();
  auto object = Napi::Object::New(env);
  object.Set("device", Napi::BigInt::New(env, identity->device));
  object.Set("inode", Napi::BigInt::New(env, identity->inode));
  object.Set("fsid", Napi::BigInt::New(env, identity->fsid));
  if (identity->filesystem)
    object.Set("filesystem", Napi::Buffer<uint8_t>::Copy(env, identity->filesystem->data(), 16));
  if (identity->generation) object.Set("generation", *identity->generation);
  return object;
}

Napi::Value JsPeek(const Napi::CallbackInfo& info) {
  const auto store = Share<Store>(info[0]);
  const auto offset = U64(info[1]);
  const uint32_t wanted = info[2].As<Napi::Number>();
  const uint64_t left = offset < store->size() ? store->size() - offset : 0;
  const auto length = static_cast<size_t>(std::min<uint64_t>({wanted, left, kMaxPeek}));
  auto data = Napi::Buffer<uint8_t>::New(info.Env(), length);
  if (length > 0)
    if (const int err = store->Read(data.Data(), length, offset)) throw SysError(err, "read");
  return data;
}

Napi::Value JsFlush(const Napi::CallbackInfo& info) {
  struct Flush : Io {
    std::shared_ptr<Store> kept;
    std::shared_ptr<int> err;
    std::function<void()> ended;
  };
  const auto err = std::make_shared<int>(0);
  const auto start = [&](std::function<void()> ended) {
    auto flush = std::make_unique<Flush>();
    flush->op = Op::kFlush;
    flush->kept = Share<Store>(info[0]);
    flush->store = flush->kept.get();
    flush->err = err;
    flush->ended = std::move(ended);
    flush->done = [](Io* io) {
      std::unique_ptr<Flush> self(static_cast<Flush*>(io));
      *self->err = self->result;
      const std::function<void()> tell = std::move(self->ended);
      self.reset();  // whoever is told may open the source anew
      tell();
    };
    std::vector<Job*> batch;
    flush.release()->Start(Executor::Shared(), batch);
    if (!batch.empty()) Executor::Shared().Submit(batch);
  };
  return Answer(info.Env(), start, [err](Napi::Env env) {
    if (*err != 0) throw SysError(*err, "fdatasync");
    return env.Undefined();
  });
}

Napi::Value JsMeasure(const Napi::CallbackInfo& info) {
  struct Measured {
    std::shared_ptr<Store> store;
    uint64_t bytes = 0;
    std::optional<SysError> failure;
  };
  const auto measured = std::make_shared<Measured>();
  measured->store = Share<Store>(info[0]);
  const auto start = [&](const std::function<void()>& ended) {
    Executor::Shared().Submit(measured->store->lane(), [measured, ended] {
      try {
        measured->bytes = measured->store->Refresh();
      } catch (const SysError& error) {
        measured->failure = error;
      }
      measured->store.reset();
      ended();
    });
  };
  return Answer(info.Env(), start, [measured](Napi::Env env) {
    if (measured->failure) throw *measured->failure;
    return Number(env, measured->bytes);
  });
}

Napi::Value JsRingRefusal(const Napi::CallbackInfo& info) {
  const auto refusal = uring::FirstRefusal();
  if (!refusal) return info.Env().Undefined();
  auto object = Napi::Object::New(info.Env());
  object.Set("code", ErrnoName(refusal->err));
  object.Set("syscall", refusal->call);
  return object;
}

Napi::Value JsSyncError(const Napi::CallbackInfo& info) {
  const int err = Get<Store>(info[0]).sync_error();
  if (err == 0) return info.Env().Undefined();
  return Napi::String::New(info.Env(), ErrnoName(err));
}

Napi::Value JsFailures(const Napi::CallbackInfo& info) {
  const Store& store = Get<Store>(info[0]);
  auto object = Napi::Object::New(info.Env());
  object.Set("count", static_cast<double>(store.failures()));
  object.Set("error", store.failure() == 0 ? "" : ErrnoName(store.failure()));
  return object;
}

Napi::Value JsSetLimits(const Napi::CallbackInfo& info) {
  const auto given = info[1].As<Napi::Object>();
  Get<Store>(info[0]).throttle().Set({RateOf(given, "iops"), RateOf(given, "bps")});
  return info.Env().Undefined();
}

Napi::Value JsLimits(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Throttle& throttle = Get<Store>(info[0]).throttle();
  const Limits limits = throttle.limits();
  auto object = Napi::Object::New(env);
  object.Set("iops", RateObject(env, limits.iops));
  object.Set("bps", RateObject(env, limits.bps));
  object.Set("waiting", Number(env, throttle.waiting()));
  object.Set("delayed", Number(env, throttle.delayed()));
  return object;
}

Napi::Value JsClaim(const Napi::CallbackInfo& info) {
  Get<Store>(info[0]).Claim();
  return info.Env().Undefined();
}

Napi::Value JsRelease(const Napi::CallbackInfo& info) {
  Get<Store>(info[0]).Release();
  return info.Env().Undefined();
}

Napi::Value JsReopen(const Napi::CallbackInfo& info) {
  Get<Store>(info[0]).Reopen();
  return info.Env().Undefined();
}

Napi::Value JsClose(const Napi::CallbackInfo& info) {
  TakeFrom<Store>(info[0]);
  return info.Env().Undefined();
}

}  // namespace vioctl::storage
