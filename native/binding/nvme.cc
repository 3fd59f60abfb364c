#include "binding/nvme.h"

#include <cstring>
#include <utility>

#include "binding/core/answers.h"
#include "binding/core/call.h"
#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "binding/core/watch.h"
#include "binding/storage.h"
#include "nvme/target.h"
#include "os/clock.h"
#include "os/eventfd.h"
#include "os/socket.h"
#include "os/thread.h"

namespace vioctl::nvme {

struct Host;

}  // namespace vioctl::nvme

namespace vioctl {

template <>
inline constexpr const char* kHandleName<nvme::Namespace> = "namespace";
template <>
inline constexpr const char* kHandleName<nvme::Controller> = "controller";
template <>
inline constexpr const char* kHandleName<nvme::Budget> = "budget";
template <>
inline constexpr const char* kHandleName<nvme::Host> = "target";

}  // namespace vioctl

namespace vioctl::nvme {
// A target and what ties it to the event loop.
struct Host {
  std::unique_ptr<Watch> watch;
  std::shared_ptr<Target> target;
  Napi::FunctionReference callback;
  std::unique_ptr<Napi::AsyncContext> context;

  void Stop() {
    watch.reset();
    if (target) target->Stop();
  }
  ~Host() { Stop(); }
};

namespace {

Napi::Object EventObject(Napi::Env env, const Event& event) {
  static constexpr const char* kKinds[] = {"opened", "command", "closed", "error", "key"};
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", kKinds[event.kind]);
  object.Set("connection", event.connection);
  switch (event.kind) {
    case Event::kOpened:
      object.Set("peer", std::string(event.data.begin(), event.data.end()));
      object.Set("listener", event.tag);
      break;
    case Event::kCommand:
      object.Set("tag", event.tag);
      object.Set("sqe",
                 Napi::Buffer<uint8_t>::Copy(env, reinterpret_cast<const uint8_t*>(&event.sqe), sizeof event.sqe));
      object.Set("data", Napi::Buffer<uint8_t>::Copy(env, event.data.data(), event.data.size()));
      break;
    case Event::kClosed:
      object.Set("reason", event.reason);
      break;
    case Event::kKey: {
      Napi::Array identities = Napi::Array::New(env, event.identities.size());
      for (uint32_t i = 0; i < event.identities.size(); i++) {
        const std::string& one = event.identities[i];
        identities.Set(i, Napi::Buffer<char>::Copy(env, one.data(), one.size()));
      }
      object.Set("identities", identities);
      break;
    }
    case Event::kError:
      if (event.fes != 0) {
        object.Set("fes", event.fes);
        object.Set("fei", event.fei);
      } else {
        object.Set("sqe",
                   Napi::Buffer<uint8_t>::Copy(env, reinterpret_cast<const uint8_t*>(&event.sqe), sizeof event.sqe));
        object.Set("status", event.status);
      }
      break;
  }
  return object;
}

void Set(Napi::Object& object, const char* name, uint64_t value) { object.Set(name, static_cast<double>(value)); }

void SetCounters(Napi::Object& object, const Counters& of) {
  Set(object, "reads", of.reads);
  Set(object, "writes", of.writes);
  Set(object, "readBytes", of.readBytes);
  Set(object, "writtenBytes", of.writtenBytes);
  Set(object, "flushes", of.flushes);
  Set(object, "others", of.others);
  Set(object, "errors", of.errors);
  Set(object, "outstanding", of.outstanding);
}

int Option(const Napi::Object& options, const char* name, int fallback) {
  const Napi::Value value = Field(options, name, Maybe(Kind::kInt32));
  return value.IsNumber() ? value.As<Napi::Number>().Int32Value() : fallback;
}

}  // namespace

Napi::Value NamespaceRelease(const Napi::CallbackInfo& info) {
  if (const auto ns = TakeFrom<Namespace>(info[0])) ns->removed.store(true);
  return info.Env().Undefined();
}

Napi::Value NamespaceNew(const Napi::CallbackInfo& info) {
  auto ns = std::make_shared<Namespace>();
  ns->store = Share<storage::Store>(info[0]);
  ns->shift = static_cast<uint8_t>(U32(info[1]));
  if (ns->shift < 9 || ns->shift > 16) throw SysError(EINVAL, "namespace", "block size");
  ns->readonly = info[2].ToBoolean() || ns->store->readonly();
  ns->blocks = ns->store->size() >> ns->shift;
  ns->regular = ns->store->fd() >= 0 && !ns->store->geometry().device;
  return NewHandle(info.Env(), std::move(ns));
}

Napi::Value NamespaceResize(const Napi::CallbackInfo& info) {
  const auto ns = Share<Namespace>(info[0]);
  const auto blocks = U64(info[1]);
  if (blocks > ns->store->size() >> ns->shift) throw SysError(EINVAL, "namespace", "larger than its store");
  ns->blocks.store(blocks);
  return info.Env().Undefined();
}

Napi::Value ControllerNew(const Napi::CallbackInfo& info) {
  auto controller = std::make_shared<Controller>();
  controller->activity = os::NowMs();
  return NewHandle(info.Env(), std::move(controller));
}

Napi::Value ControllerBudget(const Napi::CallbackInfo& info) {
  const auto controller = Share<Controller>(info[0]);
  if (controller->budget) throw SysError(EEXIST, "controller", "it has a budget");
  controller->budget = Share<Budget>(info[1]);
  return info.Env().Undefined();
}

Napi::Value BudgetNew(const Napi::CallbackInfo& info) { return NewHandle(info.Env(), std::make_shared<Budget>()); }

Napi::Value BudgetLimit(const Napi::CallbackInfo& info) {
  Share<Budget>(info[0])->Set(U64(info[1]));
  return info.Env().Undefined();
}

Napi::Value ControllerReady(const Napi::CallbackInfo& info) {
  Share<Controller>(info[0])->ready = info[1].ToBoolean();
  return info.Env().Undefined();
}

Napi::Value ControllerWriteCache(const Napi::CallbackInfo& info) {
  Share<Controller>(info[0])->writeCache = info[1].ToBoolean();
  return info.Env().Undefined();
}

Napi::Value ControllerNamespaces(const Napi::CallbackInfo& info) {
  const auto controller = Share<Controller>(info[0]);
  const auto list = info[1].As<Napi::Array>();
  auto table = std::make_shared<NamespaceTable>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto row = Item(list, i, Kind::kArray).As<Napi::Array>();
    const uint32_t nsid = U32(Item(row, 0, Kind::kUint32));
    if (nsid == 0 || nsid > 65536) throw SysError(EINVAL, "namespace", "number");
    if (table->entries.size() < nsid) table->entries.resize(nsid);
    table->entries[nsid - 1] = {Share<Namespace>(row.Get(1u)), static_cast<Status>(U32(Item(row, 2, Kind::kUint32)))};
  }
  std::lock_guard lock(controller->mutex);
  controller->table = std::move(table);
  controller->generation++;
  return info.Env().Undefined();
}

Napi::Value ControllerRunning(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Share<Controller>(info[0])->running.load(std::memory_order_acquire));
}

Napi::Value ControllerIdle(const Napi::CallbackInfo& info) {
  const uint64_t now = os::NowMs(), last = Share<Controller>(info[0])->activity;
  return Napi::Number::New(info.Env(), static_cast<double>(now > last ? now - last : 0));
}

Napi::Value ControllerStats(const Napi::CallbackInfo& info) {
  const auto controller = Share<Controller>(info[0]);
  Counters sum;
  size_t queues;
  uint64_t outstanding = 0;
  {
    std::lock_guard lock(controller->mutex);
    sum.Merge(controller->closed);
    for (const auto& queue : controller->queues) {
      sum.Merge(*queue);
      outstanding += queue->outstanding;
    }
    queues = controller->queues.size();
  }
  Napi::Object object = Napi::Object::New(info.Env());
  Set(object, "queues", queues);
  sum.outstanding = outstanding;
  SetCounters(object, sum);
  return object;
}

Napi::Value ControllerQueues(const Napi::CallbackInfo& info) {
  const auto controller = Share<Controller>(info[0]);
  std::vector<std::shared_ptr<Counters>> queues;
  {
    std::lock_guard lock(controller->mutex);
    queues = controller->queues;
  }
  Napi::Array list = Napi::Array::New(info.Env(), queues.size());
  for (uint32_t i = 0; i < queues.size(); i++) {
    Napi::HandleScope scope(info.Env());
    Napi::Object object = Napi::Object::New(info.Env());
    Set(object, "qid", queues[i]->qid);
    SetCounters(object, *queues[i]);
    list.Set(i, object);
  }
  return list;
}

Napi::Value NamespaceUsage(const Napi::CallbackInfo& info) {
  const auto ns = Share<Namespace>(info[0]);
  const Usage& usage = ns->usage;
  Napi::Object object = Napi::Object::New(info.Env());
  Set(object, "readBytes", usage.readBytes);
  Set(object, "writtenBytes", usage.writtenBytes);
  Set(object, "flushes", usage.flushes);
  Set(object, "errors", usage.errors);
  auto latency = [&](const char* name, const Latency& of) {
    Napi::Object histogram = Napi::Object::New(info.Env());
    auto buckets = Napi::Float64Array::New(info.Env(), Latency::kBuckets);
    for (int i = 0; i < Latency::kBuckets; i++) buckets[static_cast<size_t>(i)] = static_cast<double>(of.bucket(i));
    histogram.Set("buckets", buckets);
    Set(histogram, "first", Latency::kFirst);
    Set(histogram, "ns", of.ns());
    object.Set(name, histogram);
  };
  latency("read", usage.read);
  latency("write", usage.write);
  latency("other", usage.other);
  return object;
}

Napi::Value TargetStart(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto given = info[0].As<Napi::Object>();
  TargetOptions options;
  options.threads = Option(given, "threads", options.threads);
  options.spinMicroseconds = Option(given, "spinMicroseconds", options.spinMicroseconds);
  options.maxConnections = Option(given, "maxConnections", options.maxConnections);
  options.handshakeMs = Option(given, "handshakeMs", options.handshakeMs);
  options.uring = given.Get("engine").IsString() && Text(given.Get("engine")) == "uring";
  options.headerDigest = !given.Has("headerDigest") || given.Get("headerDigest").ToBoolean();
  options.dataDigest = !given.Has("dataDigest") || given.Get("dataDigest").ToBoolean();
  auto host = std::make_shared<Host>();
  host->callback = Napi::Persistent(info[1].As<Napi::Function>());
  host->context = std::make_unique<Napi::AsyncContext>(env, "vioctl:nvme-target");
  host->target = std::make_shared<Target>(options);
  // Whoever is told may stop the target, and so drop the last reference to the host.
  host->watch = std::make_unique<Watch>(env, host->target->events(), [env, weak = std::weak_ptr<Host>(host)] {
    const auto self = weak.lock();
    if (!self) return;
    os::TakeEventfd(self->target->events());
    std::vector<Event> events = self->target->Take();
    if (events.empty()) return;
    Napi::Array batch = Napi::Array::New(env, events.size());
    for (uint32_t i = 0; i < events.size(); i++) {
      Napi::HandleScope scope(env);
      batch.Set(i, EventObject(env, events[i]));
    }
    self->callback.MakeCallback(env.Global(), {batch}, *self->context);
  });
  return NewHandle(env, std::move(host));
}

Napi::Value TargetListen(const Napi::CallbackInfo& info) {
  if (U32(info[2]) > UINT16_MAX) throw SysError(EINVAL, "port");
  const auto port = static_cast<uint16_t>(U32(info[2]));
  return Napi::Number::New(info.Env(), Share<Host>(info[0])->target->Listen(Text(info[1]), port, info[3].ToBoolean()));
}

Napi::Value TargetUnlisten(const Napi::CallbackInfo& info) {
  const uint32_t listener = U32(info[1]);
  const auto start = [&](std::function<void()> ended) {
    Get<Host>(info[0]).target->Unlisten(listener, std::move(ended));
  };
  return Answer(info.Env(), start, [](Napi::Env env) { return env.Undefined(); });
}

Napi::Value TargetMaxConnections(const Napi::CallbackInfo& info) {
  const uint32_t connections = U32(info[1]);
  if (connections > INT32_MAX) throw SysError(EINVAL, "connections");
  Get<Host>(info[0]).target->SetMaxConnections(static_cast<int>(connections));
  return info.Env().Undefined();
}

// What JavaScript says of TLS. Throws SysError.
TlsUse TlsUseOf(const Napi::Value& value) {
  const uint32_t use = U32(value);
  if (use > static_cast<uint32_t>(TlsUse::kRequire)) throw SysError(EINVAL, "TLS", "use");
  if (use != 0 && !crypto::Tls::Available()) throw SysError(ENOTSUP, "TLS", "this Node does not export OpenSSL");
  return static_cast<TlsUse>(use);
}

Napi::Value TargetListenFd(const Napi::CallbackInfo& info) {
  const int fd = info[1].As<Napi::Number>().Int32Value();
  const TlsUse tls = TlsUseOf(info[2]);
  if (!os::AdoptListener(fd)) throw SysError(EINVAL, "listen", "no listening TCP socket");
  Get<Host>(info[0]).target->Listen(os::Duplicate(fd), tls);
  return info.Env().Undefined();
}

Napi::Value TargetTls(const Napi::CallbackInfo& info) {
  Get<Host>(info[0]).target->SetTls(U32(info[1]), TlsUseOf(info[2]));
  return info.Env().Undefined();
}

Napi::Value TargetSetup(const Napi::CallbackInfo& info) {
  QueueSetup setup;
  setup.qid = static_cast<uint16_t>(U32(info[2]));
  const uint32_t size = U32(info[3]);
  if (size < 2 || size > kMaxQueueSize) throw SysError(EINVAL, "queue", "size");
  setup.size = static_cast<uint16_t>(size);
  setup.flowControl = info[4].ToBoolean();
  setup.controller = Share<Controller>(info[5]);
  setup.locked = info[6].ToBoolean();
  Share<Host>(info[0])->target->Setup(U32(info[1]), setup);
  return info.Env().Undefined();
}

Napi::Value TargetKey(const Napi::CallbackInfo& info) {
  crypto::Psk psk;
  psk.identity = Text(info[2]);
  const auto key = Bytes(info[3]);
  if (!key.empty() && key.size() != 32 && key.size() != 48) throw SysError(EINVAL, "key", "size");
  psk.key.assign(key.begin(), key.end());
  psk.hash = key.size() == 48 ? 2 : 1;
  Share<Host>(info[0])->target->AnswerKey(U32(info[1]), std::move(psk));
  return info.Env().Undefined();
}

Napi::Value TargetUnlock(const Napi::CallbackInfo& info) {
  Share<Host>(info[0])->target->Unlock(U32(info[1]));
  return info.Env().Undefined();
}

Napi::Value TargetComplete(const Napi::CallbackInfo& info) {
  const auto host = Share<Host>(info[0]);
  const auto batch = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i < batch.Length(); i++) {
    Napi::HandleScope scope(info.Env());
    const auto row = Item(batch, i, Kind::kArray).As<Napi::Array>();
    const Napi::Value result = Item(row, 3, Kind::kUint64), data = Item(row, 4, Maybe(Kind::kBytes));
    std::vector<uint8_t> bytes;
    if (data.IsTypedArray()) {
      const auto view = Bytes(data);
      bytes.assign(view.begin(), view.end());
    }
    const auto word = [&](uint32_t at) { return U32(Item(row, at, Kind::kUint32)); };
    host->target->Complete(word(0), word(1), static_cast<Status>(word(2)), U64(result), std::move(bytes));
  }
  return info.Env().Undefined();
}

Napi::Value TargetClose(const Napi::CallbackInfo& info) {
  Share<Host>(info[0])->target->Close(U32(info[1]));
  return info.Env().Undefined();
}

Napi::Value TargetConnections(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Share<Host>(info[0])->target->connections());
}

Napi::Value TargetRenew(const Napi::CallbackInfo& info) {
  const auto start = [&](std::function<void()> ended) { Get<Host>(info[0]).target->Renew(std::move(ended)); };
  return Answer(info.Env(), start, [](Napi::Env env) { return env.Undefined(); });
}

Napi::Value TargetEngine(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), Share<Host>(info[0])->target->engine());
}

Napi::Value TargetStop(const Napi::CallbackInfo& info) {
  const auto host = TakeFrom<Host>(info[0]);
  const auto start = [&](const std::function<void()>& ended) {
    if (!host) return ended();
    host->watch.reset();
    // Commands under way are waited for, and their sources may hang: not on the thread of the environment.
    os::StartThread([target = std::exchange(host->target, nullptr), ended]() mutable {
      target->Stop();
      target.reset();
      ended();
    }).detach();
  };
  return Answer(info.Env(), start, [](Napi::Env env) { return env.Undefined(); });
}

}  // namespace vioctl::nvme
