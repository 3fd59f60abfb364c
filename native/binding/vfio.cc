#include "binding/vfio.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>

#include "binding/core/call.h"
#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "vfio/chain.h"
#include "vfio/exec.h"
#include "vfio/memory.h"
#include "vfio/session.h"
#include "vfio/shared.h"

namespace vioctl {

template <>
inline constexpr const char* kHandleName<vfio::Session> = "session";
template <>
inline constexpr const char* kHandleName<vfio::Memory> = "memory";

}  // namespace vioctl

namespace vioctl::vfio {
namespace {

using Info = Napi::CallbackInfo;

Session& S(const Info& info) { return Get<Session>(info[0]); }
Memory& M(const Info& info) { return Get<Memory>(info[0]); }

Napi::Value Big(Napi::Env env, uint64_t value) { return Napi::BigInt::New(env, value); }

// An object of names and values.
Napi::Object Object(Napi::Env env, std::initializer_list<std::pair<const char*, Napi::Value>> fields) {
  auto object = Napi::Object::New(env);
  for (const auto& [name, value] : fields) object.Set(name, value);
  return object;
}

// An array of what `each` makes of the items.
template <class T, class Each>
Napi::Array List(Napi::Env env, const std::vector<T>& items, const Each& each) {
  auto array = Napi::Array::New(env, items.size());
  for (uint32_t i = 0; i < items.size(); i++) array.Set(i, each(items[i]));
  return array;
}

Napi::Value Areas(Napi::Env env, const std::vector<Area>& areas) {
  auto array = Napi::BigUint64Array::New(env, 2 * areas.size());
  for (size_t i = 0; i < areas.size(); i++) array[2 * i] = areas[i].offset, array[2 * i + 1] = areas[i].size;
  return array;
}

// [offset, offset + size) of a memory.
uint8_t* Part(Memory& memory, uint64_t offset, uint64_t size) {
  if (offset > memory.size() || size > memory.size() - offset) throw SysError(ERANGE, "memory");
  return memory.get() + offset;
}

// After an access: a file that was truncated below the mapping gave zeros, or took bytes that nobody will find.
void CheckWhole(const Memory& memory) {
  if (memory.broken()) throw SysError(EIO, "memory", "the file was truncated");
}

}  // namespace

namespace {
// The session that another device joins, if one is given.
const Session* With(const Napi::Value& value) { return value.IsExternal() ? &Get<Session>(value) : nullptr; }

// Takes the 16 bytes of a VF token. Returns false if none is given.
bool TokenOf(const Napi::Value& value, VfToken& token) {
  if (!value.IsTypedArray()) return false;
  const auto bytes = value.As<Napi::Uint8Array>();
  if (bytes.ByteLength() != token.size()) throw SysError(EINVAL, "VF token");
  std::copy_n(bytes.Data(), token.size(), token.begin());
  return true;
}
}  // namespace

Napi::Value JsOpenGroup(const Info& info) {
  auto session = Session::OpenGroup(Text(info[0]), Text(info[1]), Text(info[2]), info[3].ToBoolean(), With(info[4]));
  return NewHandle(info.Env(), std::shared_ptr<Session>(std::move(session)));
}

Napi::Value JsOpenDevice(const Info& info) {
  VfToken token;
  const bool given = TokenOf(info[3], token);
  auto session = Session::OpenDevice(Text(info[0]), Text(info[1]), With(info[2]), given ? &token : nullptr);
  return NewHandle(info.Env(), std::shared_ptr<Session>(std::move(session)));
}

Napi::Value JsAdopt(const Info& info) {
  const auto fd = [&](size_t i) { return info[i].As<Napi::Number>().Int32Value(); };
  return NewHandle(info.Env(), std::shared_ptr<Session>(Session::Adopt(fd(0), fd(1), fd(2), U32(info[3]))));
}

Napi::Value JsClose(const Info& info) {
  if (const auto session = TakeFrom<Session>(info[0])) session->Close();
  return info.Env().Undefined();
}

Napi::Value JsInfo(const Info& info) {
  Napi::Env env = info.Env();
  const Session& session = S(info);
  return Object(env, {{"api", Napi::String::New(env, session.noiommu()   ? "noiommu"
                                                     : session.iommufd() ? "cdev"
                                                                         : "group")},
                      {"flags", Number(env, session.info().flags)},
                      {"regions", Number(env, session.info().num_regions)},
                      {"irqs", Number(env, session.info().num_irqs)},
                      {"pages", Big(env, session.pages())},
                      {"ranges", Areas(env, session.ranges())},
                      {"device", Napi::Number::New(env, session.device_fd())},
                      {"group", Napi::Number::New(env, session.group_fd())},
                      {"container", Napi::Number::New(env, session.container_fd())},
                      {"ioas", Number(env, session.ioas())}});
}

Napi::Value JsAvailable(const Info& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(S(info).Available()));  // -1: not known
}

Napi::Value JsRegion(const Info& info) {
  Napi::Env env = info.Env();
  const RegionInfo region = S(info).Region(U32(info[1]));
  return Object(env, {{"index", Number(env, region.index)},
                      {"flags", Number(env, region.flags)},
                      {"size", Big(env, region.size)},
                      {"sparse", Napi::Boolean::New(env, region.sparse)},
                      {"msixMappable", Napi::Boolean::New(env, region.msix_mappable)},
                      {"areas", Areas(env, region.areas)},
                      {"type", Number(env, region.type)},
                      {"subtype", Number(env, region.subtype)}});
}

Napi::Value JsIrq(const Info& info) {
  Napi::Env env = info.Env();
  const IrqInfo irq = S(info).Irq(U32(info[1]));
  return Object(
      env, {{"index", Number(env, irq.index)}, {"flags", Number(env, irq.flags)}, {"count", Number(env, irq.count)}});
}

Napi::Value JsRead(const Info& info) {
  auto bytes = info[3].As<Napi::Uint8Array>();
  S(info).Read(U32(info[1]), U64(info[2]), bytes.Data(), bytes.ByteLength());
  return bytes;
}

Napi::Value JsWrite(const Info& info) {
  auto bytes = info[3].As<Napi::Uint8Array>();
  S(info).Write(U32(info[1]), U64(info[2]), bytes.Data(), bytes.ByteLength());
  return info.Env().Undefined();
}

namespace {
unsigned Width(const Napi::Value& value) {
  const uint32_t width = U32(value);
  if (width != 1 && width != 2 && width != 4 && width != 8) throw SysError(EINVAL, "region", "width");
  return width;
}
}  // namespace

Napi::Value JsLoad(const Info& info) {
  return Big(info.Env(), S(info).Load(U32(info[1]), U64(info[2]), Width(info[3])));
}

Napi::Value JsStore(const Info& info) {
  S(info).Store(U32(info[1]), U64(info[2]), Width(info[3]), U64(info[4]));
  return info.Env().Undefined();
}

Napi::Value JsMapRegion(const Info& info) { return Number(info.Env(), S(info).MapRegion(U32(info[1]))); }

// Requests of four words: va, iova, size, 1 = device reads | 2 = device writes.
Napi::Value JsMapDma(const Info& info) {
  Session& session = S(info);
  auto words = info[1].As<Napi::BigUint64Array>();
  const size_t count = words.ElementLength() / kDmaRequestWords;
  auto result = Napi::Object::New(info.Env());
  size_t done = 0;
  try {
    for (; done < count; done++) {
      const uint64_t* r = words.Data() + kDmaRequestWords * done;
      session.Map({r[0], r[1], r[2], (r[3] & kDeviceReads) != 0, (r[3] & kDeviceWrites) != 0});
    }
  } catch (const SysError& error) {
    result.Set("error", ToJs(info.Env(), error).Value());
  }
  result.Set("done", Number(info.Env(), done));
  return result;
}

Napi::Value JsUnmapDma(const Info& info) { return Big(info.Env(), S(info).Unmap(U64(info[1]), U64(info[2]))); }

Napi::Value JsEnableIrq(const Info& info) {
  Napi::Env env = info.Env();
  return List(env, S(info).EnableIrq(U32(info[1]), U32(info[2]), U32(info[3])),
              [env](int fd) { return Napi::Number::New(env, fd); });
}

Napi::Value JsDisableIrq(const Info& info) {
  S(info).DisableIrq(U32(info[1]));
  return info.Env().Undefined();
}

Napi::Value JsMaskIrq(const Info& info) {
  S(info).MaskIrq(U32(info[1]), info[2].ToBoolean());
  return info.Env().Undefined();
}

Napi::Value JsSetVfToken(const Info& info) {
  VfToken token;
  if (!TokenOf(info[1], token)) throw SysError(EINVAL, "VF token");
  S(info).SetVfToken(token);
  return info.Env().Undefined();
}

Napi::Value JsReset(const Info& info) {
  S(info).Reset();
  return info.Env().Undefined();
}

Napi::Value JsResetPeers(const Info& info) {
  Napi::Env env = info.Env();
  return List(env, S(info).ResetPeers(), [env](const ResetPeer& peer) {
    return Object(env, {{"group", Number(env, peer.group)},
                        {"segment", Number(env, peer.segment)},
                        {"bus", Number(env, peer.bus)},
                        {"devfn", Number(env, peer.devfn)}});
  });
}

Napi::Value JsHotReset(const Info& info) {
  S(info).HotReset(Fds(info[1]));
  return info.Env().Undefined();
}

Napi::Value JsNewMemory(const Info& info) {
  auto memory = Memory::New(Text(info[0]), U64(info[1]), U64(info[2]), U64(info[3]), U64(info[4]));
  return NewHandle(info.Env(), std::make_shared<Memory>(std::move(memory)));
}

Napi::Value JsFileMemory(const Info& info) {
  const bool writable = info[2].ToBoolean();
  const std::string path = Text(info[0]);
  Fd fd = os::Open(path, writable ? O_RDWR : O_RDONLY);
  auto memory = Memory::Of(std::move(fd), U64(info[1]), writable, U64(info[3]), U64(info[4]));
  return NewHandle(info.Env(), std::make_shared<Memory>(std::move(memory)));
}

Napi::Value JsPopulate(const Info& info) {
  const uint64_t offset = U64(info[1]), size = U64(info[2]);
  Part(M(info), offset, size);
  M(info).Populate(offset, size, info[3].ToBoolean());
  return info.Env().Undefined();
}

Napi::Value JsMemoryInfo(const Info& info) {
  Napi::Env env = info.Env();
  const Memory& memory = M(info);
  return Object(env, {{"va", Big(env, reinterpret_cast<uint64_t>(memory.get()))},
                      {"size", Big(env, memory.size())},
                      {"fd", Napi::Number::New(env, memory.fd())},
                      {"writable", Napi::Boolean::New(env, memory.writable())}});
}

Napi::Value JsLoadMemory(const Info& info) {
  Memory& memory = M(info);
  const uint64_t offset = U64(info[1]);
  const unsigned width = U32(info[2]);
  if ((width != 1 && width != 2 && width != 4 && width != 8) || offset % width) throw SysError(EINVAL, "memory");
  const volatile uint8_t* at = Part(memory, offset, width);
  uint64_t value = 0;
  if (width == 1) value = *at;
  if (width == 2) value = *reinterpret_cast<const volatile uint16_t*>(at);
  if (width == 4) value = *reinterpret_cast<const volatile uint32_t*>(at);
  if (width == 8) value = *reinterpret_cast<const volatile uint64_t*>(at);
  CheckWhole(memory);
  return Big(info.Env(), value);
}

Napi::Value JsReadMemory(const Info& info) {
  auto bytes = info[2].As<Napi::Uint8Array>();
  memcpy(bytes.Data(), Part(M(info), U64(info[1]), bytes.ByteLength()), bytes.ByteLength());
  CheckWhole(M(info));
  return bytes;
}

Napi::Value JsWriteMemory(const Info& info) {
  auto bytes = info[2].As<Napi::Uint8Array>();
  if (!M(info).writable()) throw SysError(EACCES, "memory", "read-only");
  memcpy(Part(M(info), U64(info[1]), bytes.ByteLength()), bytes.Data(), bytes.ByteLength());
  CheckWhole(M(info));
  return info.Env().Undefined();
}

Napi::Value JsCloseMemory(const Info& info) {
  if (const auto memory = TakeFrom<Memory>(info[0])) memory->Close();
  return info.Env().Undefined();
}

Napi::Value JsChain(const Info& info) {
  Napi::Env env = info.Env();
  auto bytes = info[0].As<Napi::Uint8Array>();
  const auto chain = Chain(bytes.Data(), static_cast<uint32_t>(bytes.ByteLength()), U32(info[1]), U32(info[2]));
  return List(env, chain, [env](const Capability& cap) {
    return Object(env, {{"id", Number(env, cap.id)},
                        {"version", Number(env, cap.version)},
                        {"offset", Number(env, cap.offset)},
                        {"size", Number(env, cap.size)}});
  });
}

Napi::Value JsMemlock(const Info& info) {
  rlimit limit{};
  Check(::getrlimit(RLIMIT_MEMLOCK, &limit), "getrlimit");
  auto number = [&](rlim_t value) {
    return Napi::Number::New(info.Env(), value == RLIM_INFINITY ? HUGE_VAL : static_cast<double>(value));
  };
  return Object(info.Env(), {{"soft", number(limit.rlim_cur)}, {"hard", number(limit.rlim_max)}});
}

Napi::Value JsSetMemlock(const Info& info) {
  const double value = info[0].As<Napi::Number>().DoubleValue();
  if (value < 0) throw SysError(EINVAL, "setrlimit", "RLIMIT_MEMLOCK");
  const rlim_t bytes = value < 9007199254740992.0 ? static_cast<rlim_t>(value) : RLIM_INFINITY;
  const rlimit limit{bytes, bytes};
  Check(::setrlimit(RLIMIT_MEMLOCK, &limit), "setrlimit", "RLIMIT_MEMLOCK");
  return info.Env().Undefined();
}

Napi::Value JsExec(const Info& info) {
  ExecRequest request{Text(info[0]), Texts(info[1]), Texts(info[2]), Fds(info[3])};
  if (info[4].IsObject()) {
    request.drop = true;
    request.uid = U32(Field(info[4].As<Napi::Object>(), "uid", Kind::kUint32));
    request.gid = U32(Field(info[4].As<Napi::Object>(), "gid", Kind::kUint32));
  }
  Exec(request);
}

}  // namespace vioctl::vfio
