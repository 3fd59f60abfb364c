#include "binding/core/watch.h"

#include <new>
#include <utility>

#include "binding/core/call.h"
#include "os/eventfd.h"

// The few functions of libuv that are needed, which Node exports. Their ABI is fixed for all of libuv 1.x, and a
// handle's size is asked at run time; libuv's headers are part of no npm package.
extern "C" {
struct uv_loop_s;
struct uv_handle_s {
  void* data;  // first member of every handle (uv.h, UV_HANDLE_FIELDS)
};
size_t uv_handle_size(int type);
int uv_poll_init(uv_loop_s* loop, uv_handle_s* handle, int fd);
int uv_poll_start(uv_handle_s* handle, int events, void (*cb)(uv_handle_s*, int status, int events));
int uv_poll_stop(uv_handle_s* handle);
void uv_close(uv_handle_s* handle, void (*cb)(uv_handle_s*));
void uv_ref(uv_handle_s* handle);
void uv_unref(uv_handle_s* handle);
}

namespace vioctl {
namespace {
constexpr int kUvPoll = 8;      // UV_POLL in uv_handle_type
constexpr int kUvReadable = 1;  // UV_READABLE
}  // namespace

// Lives until libuv has closed its handle, which is after the Watch ended or after the environment began to end,
// whichever comes first. The environment waits for that: `hook` is removed last.
struct Watch::Handle {
  napi_env env;
  std::function<void()> readable;
  uv_handle_s* uv = nullptr;
  Watch* watch = nullptr;  // nullptr once it has ended
  napi_async_cleanup_hook_handle hook = nullptr;
  bool closing = false;

  void Close() {
    readable = nullptr;
    if (std::exchange(closing, true)) return;
    uv_poll_stop(uv);
    uv_close(uv, &Handle::Closed);
  }

  static void Closed(uv_handle_s* uv) {
    auto* self = static_cast<Handle*>(uv->data);
    ::operator delete(uv);
    if (self->watch) self->watch->handle_ = nullptr;
    if (self->hook) napi_remove_async_cleanup_hook(self->hook);
    delete self;
  }

  static void EnvironmentEnds(napi_async_cleanup_hook_handle, void* data) { static_cast<Handle*>(data)->Close(); }

  static void Polled(uv_handle_s* uv, int, int) {
    auto* self = static_cast<Handle*>(uv->data);
    if (!self->readable) return;
    Napi::Env env(self->env);
    Napi::HandleScope scope(env);
    auto readable = self->readable;  // the callback may end the watch
    Report(env, [&] { readable(); });
  }
};

Watch::Watch(Napi::Env env, int fd, std::function<void()> readable) {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw SysError(EINVAL, "napi_get_uv_event_loop");
  auto handle = std::make_unique<Handle>(Handle{env, std::move(readable)});
  handle->uv = static_cast<uv_handle_s*>(::operator new(uv_handle_size(kUvPoll)));
  if (int err = uv_poll_init(loop, handle->uv, fd); err < 0) {
    ::operator delete(handle->uv);
    throw SysError(-err, "uv_poll_init");
  }
  handle->uv->data = handle.get();
  if (int err = uv_poll_start(handle->uv, kUvReadable, &Handle::Polled); err < 0) {
    handle.release()->Close();
    throw SysError(-err, "uv_poll_start");
  }
  if (napi_add_async_cleanup_hook(env, &Handle::EnvironmentEnds, handle.get(), &handle->hook) != napi_ok) {
    handle->hook = nullptr;
    handle.release()->Close();
    throw SysError(ECANCELED, "napi_add_async_cleanup_hook", "the environment is ending");
  }
  handle->watch = this;
  handle_ = handle.release();
}

Watch::~Watch() {
  if (handle_ == nullptr) return;
  handle_->watch = nullptr;
  handle_->Close();
}

void Watch::Ref(bool keep) {
  if (handle_ == nullptr || handle_->closing) return;
  if (keep)
    uv_ref(handle_->uv);
  else
    uv_unref(handle_->uv);
}

Napi::Value WatchEventfd(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int fd = info[0].As<Napi::Number>();
  auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[1].As<Napi::Function>()));
  auto context = std::make_shared<Napi::AsyncContext>(env, "vioctl:eventfd");
  auto watch = std::make_shared<std::unique_ptr<Watch>>();
  *watch = std::make_unique<Watch>(env, fd, [env, fd, callback, context] {
    if (const uint64_t count = os::TakeEventfd(fd); count > 0)
      callback->MakeCallback(env.Global(), {Napi::Number::New(env, static_cast<double>(count))}, *context);
  });
  return WatchObject(env, watch);
}

Napi::Object WatchObject(Napi::Env env, const std::shared_ptr<std::unique_ptr<Watch>>& watch) {
  Napi::Object object = Napi::Object::New(env);
  SetMethod(object, "close", [watch](const Napi::CallbackInfo&) { watch->reset(); });
  SetMethod<Kind::kBoolean>(object, "ref", [watch](const Napi::CallbackInfo& args) {
    if (*watch) (*watch)->Ref(args[0].ToBoolean());
  });
  return object;
}

}  // namespace vioctl
