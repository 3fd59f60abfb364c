#include "binding/storage.h"

#include <sys/stat.h>

#include <algorithm>
#include <variant>

#include "binding/core/answers.h"
#include "binding/core/call.h"
#include "binding/core/values.h"
#include "storage/farewell.h"
#include "storage/io.h"
#include "storage/zeroes.h"
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

// Everything that a source does on a thread of the executor, in a lane: a promise of what `result` makes of it.
template <typename T>
Napi::Value InLane(Napi::Env env, const std::shared_ptr<Lane>& lane, std::function<T()> work,
                   std::function<Napi::Value(Napi::Env, const T&)> result) {
  struct Ended {
    std::optional<T> value;
    std::optional<SysError> failure;
  };
  const auto ended = std::make_shared<Ended>();
  const auto start = [&](const std::function<void()>& tell) {
    Executor::Shared().Submit(lane, [ended, work, tell]() mutable {
      try {
        ended->value = work();
      } catch (const SysError& error) {
        ended->failure = error;
      }
      work = nullptr;  // it may hold the last reference to a source: that is closed before anybody is told
      tell();
    });
  };
  return Answer(env, start, [ended, result](Napi::Env at) {
    if (ended->failure) throw *ended->failure;
    // Not left to the work, which may still be on its way out of its thread: a source that JavaScript closes is closed.
    const T value = std::move(*ended->value);
    ended->value.reset();
    return result(at, value);
  });
}

// The same for several things, one after the other: an array of what `result` makes of each, or of its error.
template <typename From, typename T>
Napi::Value EachInLane(Napi::Env env, const std::shared_ptr<Lane>& lane, std::vector<From> all,
                       std::function<T(const From&)> work, std::function<Napi::Value(Napi::Env, const T&)> result) {
  using Done = std::vector<std::variant<T, SysError>>;
  const auto each = [all = std::move(all), work] {
    Done done;
    done.reserve(all.size());
    for (const From& one : all) try {
        done.emplace_back(work(one));
      } catch (const SysError& error) {
        done.emplace_back(error);
      }
    return done;
  };
  return InLane<Done>(env, lane, each, [result](Napi::Env at, const Done& done) {
    auto list = Napi::Array::New(at, done.size());
    for (uint32_t i = 0; i < done.size(); i++) {
      const auto* found = std::get_if<T>(&done[i]);
      list.Set(i, found ? result(at, *found) : ToJs(at, std::get<SysError>(done[i])).Value());
    }
    return list;
  });
}

// A change of the description that a source is read by, which waits for the file system.
Napi::Value Change(const Napi::CallbackInfo& info, void (Store::*change)()) {
  const auto store = Share<Store>(info[0]);
  const auto work = [store, change] {
    ((*store).*change)();
    return true;
  };
  return InLane<bool>(info.Env(), store->changes(), work, [](Napi::Env env, bool) { return env.Undefined(); });
}

template <typename T>
std::vector<T> ListOf(const Napi::Value& value, T (*of)(const Napi::Object&)) {
  const auto list = value.As<Napi::Array>();
  std::vector<T> all;
  for (uint32_t i = 0; i < list.Length(); i++) all.push_back(of(Item(list, i, Kind::kObject).As<Napi::Object>()));
  return all;
}

FileOptions OptionsOf(const Napi::Object& given) {
  FileOptions options;
  options.readonly = given.Get("readonly").ToBoolean();
  options.shared = given.Get("shared").ToBoolean();
  options.force = given.Get("force").ToBoolean();
  options.direct = given.Get("direct").ToBoolean();
  if (const Napi::Value claim = given.Get("claim"); claim.IsBoolean()) options.claim = claim.ToBoolean();
  if (const Napi::Value ring = given.Get("ring"); ring.IsBoolean()) options.ring = ring.ToBoolean();
  if (const Napi::Value mode = Field(given, "zero", Maybe(Kind::kText)); mode.IsString()) {
    const std::string zero = Text(mode);
    options.zero = zero == "unmap" ? ZeroMode::kUnmap : zero == "off" ? ZeroMode::kWrite : ZeroMode::kHoles;
  }
  return options;
}

// What is looked at of a source: up to `length` bytes from `at` on, which counts from the end if it is negative.
struct Part {
  int64_t at;
  uint32_t length;
};

std::vector<Part> PartsOf(const Napi::Value& value) {
  const auto list = value.As<Napi::Array>();
  std::vector<Part> parts(list.Length());
  for (uint32_t i = 0; i < parts.size(); i++) {
    const auto one = Item(list, i, Kind::kArray).As<Napi::Array>();
    parts[i] = {Item(one, 0, Kind::kInteger).As<Napi::Number>().Int64Value(), U32(Item(one, 1, Kind::kUint32))};
  }
  return parts;
}

// The bytes of each part, less at the end of the source; nothing of a hole.
using Data = std::optional<std::vector<std::byte>>;
std::vector<Data> Look(Store& store, const std::vector<Part>& parts) {
  std::vector<Data> found(parts.size());
  const uint64_t size = store.size();
  const bool holes = store.fd() >= 0 && !store.geometry().device;
  uint64_t hole = 0, hole_end = 0;  // of the hole that was found last
  for (size_t i = 0; i < parts.size(); i++) {
    const auto [at, length] = parts[i];
    const uint64_t before = static_cast<uint64_t>(-at);  // the end, if it is negative
    const uint64_t offset = at >= 0 ? static_cast<uint64_t>(at) : size - std::min(size, before);
    const uint64_t wanted = std::min<uint64_t>({length, size - std::min(size, offset), kMaxPeek});
    // A hole is not read: the kernel would fill the page cache with zeroes, and with more behind it, for each new disk.
    if (holes && wanted > 0 && (offset < hole || offset + wanted > hole_end)) {
      hole = offset;
      hole_end = HoleEnd(store.fd(), offset);
    }
    if (holes && wanted > 0 && offset + wanted <= hole_end) continue;
    found[i].emplace(wanted);
    if (wanted == 0) continue;
    if (const int err = store.Read(found[i]->data(), wanted, offset)) throw SysError(err, "read");
  }
  return found;
}

Napi::Value BuffersOf(Napi::Env env, const std::vector<Data>& parts) {
  auto list = Napi::Array::New(env, parts.size());
  for (uint32_t i = 0; i < parts.size(); i++) {
    if (!parts[i]) {
      list.Set(i, env.Undefined());
      continue;
    }
    const auto* data = reinterpret_cast<const uint8_t*>(parts[i]->data());
    list.Set(i, Napi::Buffer<uint8_t>::Copy(env, data, parts[i]->size()));
  }
  return list;
}

// The lanes of what is not open yet. One that hangs keeps a thread; so few can that the others still get theirs.
std::shared_ptr<Lane> Openings() {
  static const auto* const lane = new std::shared_ptr<Lane>(std::make_shared<Lane>());
  return *lane;
}
std::shared_ptr<Lane> Looks() {
  static const auto* const lane = new std::shared_ptr<Lane>(std::make_shared<Lane>());
  return *lane;
}

}  // namespace

Napi::Value JsOpen(const Napi::CallbackInfo& info) {
  return NewHandle(info.Env(), OpenFile(Text(info[0]), OptionsOf(info[1].As<Napi::Object>())));
}

Napi::Value JsOpenLater(const Napi::CallbackInfo& info) {
  struct Wanted {
    std::string path;
    FileOptions options;
    std::vector<Part> parts;
  };
  struct Opened {
    std::shared_ptr<Store> store;
    std::vector<Data> parts;
  };
  const auto open = [](const Wanted& wanted) {
    Opened opened{OpenFileLater(wanted.path, wanted.options), {}};
    opened.parts = Look(*opened.store, wanted.parts);
    return opened;
  };
  const auto wanted = ListOf<Wanted>(info[0], [](const Napi::Object& one) {
    return Wanted{Text(Field(one, "path", Kind::kPath)),
                  OptionsOf(Field(one, "options", Kind::kObject).As<Napi::Object>()),
                  PartsOf(Field(one, "parts", Kind::kArray))};
  });
  return EachInLane<Wanted, Opened>(info.Env(), Openings(), wanted, open, [](Napi::Env env, const Opened& opened) {
    auto object = Napi::Object::New(env);
    object.Set("store", NewHandle(env, opened.store));
    object.Set("parts", BuffersOf(env, opened.parts));
    return object;
  });
}

Napi::Value JsReach(const Napi::CallbackInfo& info) {
  const auto look = [](const std::string& path) {
    struct stat st;
    Check(::stat(path.c_str(), &st), "stat", path.c_str());
    return st;
  };
  return EachInLane<std::string, struct stat>(
      info.Env(), Looks(), Texts(info[0]), look, [](Napi::Env env, const struct stat& st) {
        auto object = Napi::Object::New(env);
        object.Set("mode", Napi::BigInt::New(env, static_cast<uint64_t>(st.st_mode)));
        object.Set("dev", Napi::BigInt::New(env, static_cast<uint64_t>(st.st_dev)));
        object.Set("ino", Napi::BigInt::New(env, static_cast<uint64_t>(st.st_ino)));
        object.Set("rdev", Napi::BigInt::New(env, static_cast<uint64_t>(st.st_rdev)));
        return object;
      });
}

Napi::Value JsRam(const Napi::CallbackInfo& info) { return NewHandle(info.Env(), OpenRam(U64(info[0]))); }

Napi::Value JsSize(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Store>(info[0]).size()); }

Napi::Value JsRefresh(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Store>(info[0]).Refresh()); }

Napi::Value JsGeometry(const Napi::CallbackInfo& info) {
  const Store& store = Get<Store>(info[0]);
  const Geometry geometry = store.geometry();
  auto object = Napi::Object::New(info.Env());
  object.Set("logical", geometry.logical);
  object.Set("physical", geometry.physical);
  object.Set("minimumIo", geometry.minimum_io);
  object.Set("optimalIo", geometry.optimal_io);
  object.Set("alignmentOffset", geometry.alignment_offset);
  object.Set("directMemory", geometry.direct_memory);
  object.Set("directOffset", geometry.direct_offset);
  object.Set("rotational", geometry.rotational);
  object.Set("device", geometry.device);
  object.Set("readonly", geometry.readonly);
  if (const char* why = store.without_ring()) object.Set("withoutRing", why);
  return object;
}

Napi::Value JsIdentity(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto identity = Get<Store>(info[0]).identity();
  if (!identity) return env.Undefined();
  auto object = Napi::Object::New(env);
  object.Set("block", identity->block);
  object.Set("device", Napi::BigInt::New(env, identity->device));
  object.Set("inode", Napi::BigInt::New(env, identity->inode));
  object.Set("fsid", Napi::BigInt::New(env, identity->fsid));
  if (identity->filesystem) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string uuid;
    for (const uint8_t byte : *identity->filesystem) uuid.append({kDigits[byte >> 4], kDigits[byte & 15]});
    object.Set("filesystem", uuid);
  }
  if (identity->generation) object.Set("generation", *identity->generation);
  if (identity->born) object.Set("born", Napi::BigInt::New(env, *identity->born));
  return object;
}

Napi::Value JsPeek(const Napi::CallbackInfo& info) {
  return BuffersOf(info.Env(), Look(Get<Store>(info[0]), PartsOf(info[1])));
}

Napi::Value JsPeekLater(const Napi::CallbackInfo& info) {
  const auto store = Share<Store>(info[0]);
  const auto work = [store, parts = PartsOf(info[1])] { return Look(*store, parts); };
  return InLane<std::vector<Data>>(info.Env(), store->lane(), work, BuffersOf);
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
  const auto store = Share<Store>(info[0]);
  const auto work = [store] { return store->Refresh(); };
  // A remote source may ask whoever has it: no request is to wait behind that.
  return InLane<uint64_t>(info.Env(), store->remote() ? store->changes() : store->lane(), work,
                          [](Napi::Env env, uint64_t bytes) { return Number(env, bytes); });
}

Napi::Value JsNews(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto list = Napi::Array::New(env);
  for (const News& one : Get<Store>(info[0]).TakeNews()) {
    auto object = Napi::Object::New(env);
    object.Set("what", one.what);
    object.Set("error", one.err == 0 ? "" : ErrnoName(one.err));
    list.Set(list.Length(), object);
  }
  return list;
}

Napi::Value JsLastingName(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), Get<Store>(info[0]).lasting_name());
}

Napi::Value JsRingRefusal(const Napi::CallbackInfo& info) {
  const auto refusal = uring::FirstRefusal();
  if (!refusal) return info.Env().Undefined();
  auto object = Napi::Object::New(info.Env());
  object.Set("code", ErrnoName(refusal->err));
  object.Set("syscall", refusal->call);
  return object;
}

Napi::Value JsBufferRefusal(const Napi::CallbackInfo& info) {
  const int err = uring::BufferRefusal();
  return err == 0 ? info.Env().Undefined() : Napi::String::New(info.Env(), ErrnoName(err));
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

Napi::Value JsClaim(const Napi::CallbackInfo& info) { return Change(info, &Store::Claim); }

Napi::Value JsRelease(const Napi::CallbackInfo& info) { return Change(info, &Store::Release); }

Napi::Value JsReopen(const Napi::CallbackInfo& info) { return Change(info, &Store::Reopen); }

Napi::Value JsFarewells(const Napi::CallbackInfo& info) {
  const auto work = [most = std::chrono::milliseconds(U32(info[0]))] {
    return AwaitFarewells(most) != Farewells::kLast;
  };
  return InLane<bool>(info.Env(), std::make_shared<Lane>(), work,
                      [](Napi::Env env, bool ended) { return Napi::Boolean::New(env, ended); });
}

Napi::Value JsClose(const Napi::CallbackInfo& info) {
  TakeFrom<Store>(info[0]);
  return info.Env().Undefined();
}

}  // namespace vioctl::storage
