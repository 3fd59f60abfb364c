#include "binding/storage.h"

#include <algorithm>

#include "binding/call.h"

namespace vioctl::storage {
namespace {

using StoreRef = std::shared_ptr<Store>;
constexpr napi_type_tag kStoreTag = {0x76696f63746c5374, 0x73746f7261676501};
constexpr uint32_t kMaxPeek = 1 << 20;

StoreRef& RefOf(const Napi::Value& value) {
  bool ours = false;
  if (value.IsExternal()) napi_check_object_type_tag(value.Env(), value, &kStoreTag, &ours);
  if (!ours) throw SysError(EINVAL, "store", "not a store");
  return *value.As<Napi::External<StoreRef>>().Data();
}

Napi::Value Wrap(Napi::Env env, StoreRef store) {
  auto external =
      Napi::External<StoreRef>::New(env, new StoreRef(std::move(store)), [](Napi::Env, StoreRef* ref) { delete ref; });
  napi_type_tag_object(env, external, &kStoreTag);
  return external;
}

class FlushWorker final : public Napi::AsyncWorker {
 public:
  FlushWorker(Napi::Env env, StoreRef store)
      : AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), store_(std::move(store)) {}
  Napi::Value promise() const { return deferred_.Promise(); }
  void Execute() override { err_ = store_->Flush(); }
  void OnOK() override {
    if (err_ == 0)
      deferred_.Resolve(Env().Undefined());
    else
      deferred_.Reject(ToJs(Env(), SysError(err_, "fdatasync")).Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  StoreRef store_;
  int err_ = 0;
};

}  // namespace

StoreRef StoreOf(const Napi::Value& handle) {
  StoreRef store = RefOf(handle);
  if (!store) throw SysError(EINVAL, "store", "it is closed");
  return store;
}

Napi::Value JsOpen(const Napi::CallbackInfo& info) {
  const auto given = info[1].As<Napi::Object>();
  FileOptions options;
  options.readonly = given.Get("readonly").ToBoolean();
  options.shared = given.Get("shared").ToBoolean();
  options.force = given.Get("force").ToBoolean();
  if (given.Get("zero").IsString()) {
    const std::string zero = given.Get("zero").As<Napi::String>();
    options.zero = zero == "unmap" ? ZeroMode::kUnmap : zero == "off" ? ZeroMode::kWrite : ZeroMode::kHoles;
  }
  return Wrap(info.Env(), OpenFile(info[0].As<Napi::String>(), options));
}

Napi::Value JsRam(const Napi::CallbackInfo& info) {
  return Wrap(info.Env(), OpenRam(static_cast<uint64_t>(info[0].As<Napi::Number>().DoubleValue())));
}

Napi::Value JsSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(StoreOf(info[0])->size()));
}

Napi::Value JsRefresh(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(StoreOf(info[0])->Refresh()));
}

Napi::Value JsGeometry(const Napi::CallbackInfo& info) {
  const Geometry geometry = StoreOf(info[0])->geometry();
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
  const auto identity = StoreOf(info[0])->identity();
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
  const auto store = StoreOf(info[0]);
  const auto offset = static_cast<uint64_t>(info[1].As<Napi::Number>().DoubleValue());
  const uint32_t wanted = info[2].As<Napi::Number>();
  const uint64_t left = offset < store->size() ? store->size() - offset : 0;
  const auto length = static_cast<size_t>(std::min<uint64_t>({wanted, left, kMaxPeek}));
  auto data = Napi::Buffer<uint8_t>::New(info.Env(), length);
  if (length > 0)
    if (const int err = store->Read(data.Data(), length, offset)) throw SysError(err, "read");
  return data;
}

Napi::Value JsFlush(const Napi::CallbackInfo& info) {
  auto* worker = new FlushWorker(info.Env(), StoreOf(info[0]));
  const Napi::Value promise = worker->promise();
  worker->Queue();
  return promise;
}

Napi::Value JsSyncError(const Napi::CallbackInfo& info) {
  const int err = StoreOf(info[0])->sync_error();
  if (err == 0) return info.Env().Undefined();
  return Napi::String::New(info.Env(), ErrnoName(err));
}

Napi::Value JsReopen(const Napi::CallbackInfo& info) {
  StoreOf(info[0])->Reopen();
  return info.Env().Undefined();
}

Napi::Value JsClose(const Napi::CallbackInfo& info) {
  RefOf(info[0]).reset();
  return info.Env().Undefined();
}

}  // namespace vioctl::storage
