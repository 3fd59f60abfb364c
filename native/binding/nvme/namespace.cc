#include "binding/nvme/namespace.h"

#include <cstring>
#include <optional>

#include "binding/core/answers.h"
#include "binding/core/async.h"
#include "binding/core/call.h"
#include "binding/core/values.h"
#include "binding/nvme/authenticator.h"
#include "binding/storage.h"
#include "nvme/host/copy/copy.h"
#include "nvme/host/secure.h"
#include "nvme/host/source.h"
#include "nvme/host/stamp.h"
#include "os/eventfd.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint32_t kMaxQueues = 1024, kMaxDepth = 1024;
constexpr uint32_t kMaxChunk = 64 << 20;

constexpr const char* kWhere[] = {"none", "namespace", "input", "cut", "output"};

Napi::Value Hex(Napi::Env env, const uint8_t* bytes, size_t size) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes, size);
}

std::vector<Address> AddressesOf(const Napi::Array& given) {
  std::vector<Address> addresses;
  for (uint32_t i = 0; i < given.Length(); i++) {
    const auto one = Item(given, i, Kind::kObject).As<Napi::Object>();
    const uint32_t port = U32(Field(one, "port", Kind::kUint32));
    if (port == 0 || port > UINT16_MAX) throw SysError(EINVAL, "hostOpen", "port");
    addresses.push_back({Text(Field(one, "host", Kind::kPath)), static_cast<uint16_t>(port)});
  }
  return addresses;
}

}  // namespace

Dialer DialerOf(const Napi::Value& value) {
  if (!value.IsArray()) return Dial;
  const auto given = value.As<Napi::Array>();
  std::vector<crypto::Psk> keys;
  for (uint32_t i = 0; i < given.Length(); i++) {
    const auto one = Item(given, i, Kind::kObject).As<Napi::Object>();
    const auto bytes = Bytes(Field(one, "psk", Kind::kBytes));
    if (bytes.size() != 32 && bytes.size() != 48) throw SysError(EINVAL, "hostOpen", "psk");
    auto& psk = keys.emplace_back();
    psk.identity = Text(Field(one, "identity", Kind::kPath));
    psk.key.assign(bytes.begin(), bytes.end());
    psk.hash = bytes.size() == 48 ? 2 : 1;
  }
  if (keys.empty()) throw SysError(EINVAL, "hostOpen", "tls");
  return SecureDialer(std::move(keys));
}

Napi::Error Refused(Napi::Env env, const CommandError& error) {
  Napi::Error js = ToJs(env, error);
  js.Value().Set("status", Napi::Number::New(env, error.status()));
  js.Value().Set("result", Napi::Number::New(env, static_cast<double>(error.result() & UINT32_MAX)));
  return js;
}

NamespaceOptions OptionsOf(const Napi::Object& given) {
  const auto number = [&](const char* name) { return U32(Field(given, name, Kind::kUint32)); };
  const auto flag = [&](const char* name) { return Field(given, name, Kind::kBoolean).As<Napi::Boolean>().Value(); };
  NamespaceOptions options;
  options.addresses = AddressesOf(Field(given, "addresses", Kind::kArray).As<Napi::Array>());
  if (const Napi::Value found = Field(given, "found", Maybe(Kind::kArray)); found.IsArray())
    options.found = AddressesOf(found.As<Napi::Array>());
  options.hostnqn = Text(Field(given, "hostnqn", Kind::kPath));
  options.subnqn = Text(Field(given, "subnqn", Kind::kPath));
  const auto id = Bytes(Field(given, "hostid", Kind::kBytes));
  if (id.size() != options.hostid.size()) throw SysError(EINVAL, "hostOpen", "hostid");
  memcpy(options.hostid.data(), id.data(), id.size());
  options.nsid = number("nsid");
  options.queues = number("queues");
  options.entries = number("entries");
  options.keep_alive_ms = number("keepAliveMs");
  options.timeout_ms = number("timeoutMs");
  options.loss_ms = number("lossMs");
  options.header_digest = flag("headerDigest");
  options.data_digest = flag("dataDigest");
  options.flow_control = flag("flowControl");
  options.replay = flag("replay");
  options.dial = DialerOf(Field(given, "tls", Maybe(Kind::kArray)));
  if (const Napi::Value handle = given.Get("authenticator"); !handle.IsUndefined()) {
    // JavaScript waits for exchanges until the last host that may have some is gone.
    struct Closer {
      std::shared_ptr<Authenticator> of;
      ~Closer() { of->Close(); }
    };
    const auto closer = std::make_shared<Closer>(Share<Authenticator>(handle));
    options.authenticate = [closer](Queue& queue, const Connected& connected, const Wait& wait) {
      closer->of->Authenticate(queue, connected, wait);
    };
  }
  if (options.queues < 1 || options.queues > kMaxQueues || options.entries < 2 || options.entries > kMaxEntries ||
      options.timeout_ms == 0 || options.addresses.empty())
    throw SysError(EINVAL, "hostOpen", "options");
  return options;
}

Napi::Value JsHostOpen(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  struct Opening {
    NamespaceOptions options;
    Fd stop = os::NewEventfd();
    std::shared_ptr<Host> host;
    std::optional<SysError> failure;
    std::optional<CommandError> refused;
  };
  auto opening = std::make_shared<Opening>();
  opening->options = OptionsOf(info[0].As<Napi::Object>());
  const auto stop = [opening] {
    if (opening->stop.valid()) os::SignalPeer(opening->stop.get(), true);
  };
  const auto work = [opening] {
    try {
      opening->host = Host::Open(opening->options, {}, opening->stop.get());
    } catch (const CommandError& error) {
      opening->refused = error;
    } catch (const SysError& error) {
      opening->failure = error;
    }
  };
  const auto result = [opening](Napi::Env in) {
    opening->stop.Reset();  // the method may outlive this
    if (opening->refused) throw Refused(in, *opening->refused);
    if (opening->failure) throw *opening->failure;
    return NewHandle(in, std::move(opening->host));
  };
  Napi::Object object = Napi::Object::New(env);
  object.Set("done", RunAsync(env, work, result, stop));
  SetMethod(object, "stop", [stop](const Napi::CallbackInfo&) { stop(); });
  return object;
}

Napi::Value JsHostSource(const Napi::CallbackInfo& info) {
  struct Opening {
    SourceOptions options;
    std::shared_ptr<storage::Store> store;
    std::optional<SysError> failure;
    std::optional<CommandError> refused;
  };
  const auto opening = std::make_shared<Opening>();
  const auto given = info[0].As<Napi::Object>();
  static_cast<NamespaceOptions&>(opening->options) = OptionsOf(given);
  opening->options.refuse_own = true;
  opening->options.readonly = Field(given, "readonly", Kind::kBoolean).As<Napi::Boolean>();
  opening->options.unmap = Field(given, "unmap", Kind::kBoolean).As<Napi::Boolean>();
  const auto start = [opening](const std::function<void()>& ended) {
    storage::Executor::Shared().Submit(std::make_shared<storage::Lane>(), [opening, ended] {
      try {
        opening->store = OpenSource(opening->options);
      } catch (const CommandError& error) {
        opening->refused = error;
      } catch (const SysError& error) {
        opening->failure = error;
      }
      ended();
    });
  };
  return Answer(info.Env(), start, [opening](Napi::Env env) -> Napi::Value {
    if (opening->refused) throw Refused(env, *opening->refused);
    if (opening->failure) throw *opening->failure;
    return NewHandle(env, std::move(opening->store));
  });
}

Napi::Value JsHostStamp(const Napi::CallbackInfo& info) {
  const Stamp& stamp = ProcessStamp();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), stamp.data(), stamp.size());
}

Napi::Value JsHostHops(const Napi::CallbackInfo& info) {
  const std::vector<uint8_t> hops = PassedOn(HopsTo(Get<storage::Store>(info[0])));
  return Napi::Buffer<uint8_t>::Copy(info.Env(), hops.data(), hops.size());
}

Napi::Value JsHostPaths(const Napi::CallbackInfo& info) {
  auto& store = Get<storage::Store>(info[0]);
  if (info[1].IsArray()) Follow(store, AddressesOf(info[1].As<Napi::Array>()));
  const PathCount count = PathsOf(store);
  auto object = Napi::Object::New(info.Env());
  object.Set("live", count.live);
  object.Set("all", count.all);
  return object;
}

Napi::Value JsHostFacts(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Host& host = Get<Host>(info[0]);
  const NamespaceFacts& facts = host.facts();
  const Controller& controller = host.controller();
  auto object = Napi::Object::New(env);
  object.Set("nsid", facts.nsid);
  object.Set("size", Napi::BigInt::New(env, host.size()));
  object.Set("blockSize", facts.block_size);
  object.Set("readonly", facts.readonly);
  object.Set("volatileCache", controller.volatile_cache);
  object.Set("maxTransfer", controller.max_transfer);
  object.Set("queues", host.queues());
  object.Set("depth", host.depth());
  object.Set("canZero", controller.can_zero);
  object.Set("nguid", Hex(env, facts.nguid.data(), facts.nguid.size()));
  object.Set("uuid", Hex(env, facts.uuid.data(), facts.uuid.size()));
  object.Set("eui64", Hex(env, facts.eui64.data(), facts.eui64.size()));
  object.Set("paths", host.paths().live);
  object.Set("reconnects", Number(env, host.reconnects()));
  return object;
}

Napi::Value JsHostCopy(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  struct Copying {
    std::shared_ptr<Host> host;
    CopyOptions options;
    CopyState state;
    CopyResult result;
  };
  auto copying = std::make_shared<Copying>();
  copying->host = Share<Host>(info[0]);
  const auto given = info[1].As<Napi::Object>();
  const auto flag = [&](const char* name) { return Field(given, name, Kind::kBoolean).As<Napi::Boolean>().Value(); };
  CopyOptions& options = copying->options;
  options.fd = Field(given, "fd", Kind::kInt32).As<Napi::Number>();
  options.offset = U64(Field(given, "offset", Kind::kUint64));
  options.length = U64(Field(given, "length", Kind::kUint64));
  options.chunk = U32(Field(given, "chunk", Kind::kUint32));
  options.depth = U32(Field(given, "depth", Kind::kUint32));
  options.fua = flag("fua");
  options.deallocate = flag("deallocate");
  const bool write = flag("write");
  const uint64_t size = copying->host->size();
  if (options.depth < 1 || options.depth > kMaxDepth || options.chunk > kMaxChunk || options.offset > size ||
      options.length > size - options.offset)
    throw SysError(EINVAL, "hostCopy", "options");
  const auto stop = [copying] { copying->state.stop.store(true); };
  Napi::Object object = Napi::Object::New(env);
  object.Set("done", RunAsync(
                         env,
                         [copying, write] {
                           copying->result = write ? WriteFrom(*copying->host, copying->options, copying->state)
                                                   : ReadInto(*copying->host, copying->options, copying->state);
                         },
                         [copying](Napi::Env in) {
                           // The methods may outlive this: from now on, hostClose() ends the association.
                           const std::shared_ptr<Host> host = std::move(copying->host);
                           const CopyResult& result = copying->result;
                           auto to = Napi::Object::New(in);
                           to.Set("bytes", Napi::BigInt::New(in, result.bytes));
                           to.Set("durable", Napi::BigInt::New(in, result.durable));
                           to.Set("mergedBlocks", Number(in, result.merged_blocks));
                           to.Set("overlong", result.overlong);
                           to.Set("error", result.err == 0 ? "" : ErrnoName(result.err));
                           to.Set("where", kWhere[static_cast<size_t>(result.where)]);
                           to.Set("status", host->failure());
                           to.Set("lost", host->lost() == 0 ? "" : ErrnoName(host->lost()));
                           to.Set("lostWhy", host->lost_why());
                           return to;
                         },
                         stop));
  SetMethod(object, "stop", [stop](const Napi::CallbackInfo&) { stop(); });
  SetMethod(object, "progress", [copying](const Napi::CallbackInfo& call) -> Napi::Value {
    return Number(call.Env(), copying->state.done.load());
  });
  return object;
}

Napi::Value JsHostClose(const Napi::CallbackInfo& info) {
  // Its controllers are shut down, which may take a moment.
  auto host = std::make_shared<std::shared_ptr<Host>>(TakeFrom<Host>(info[0]));
  return RunAsync(
      info.Env(), [host] { host->reset(); }, [](Napi::Env env) { return env.Undefined(); });
}

}  // namespace vioctl::nvme::host
