#include "binding/watch.h"

#include <new>

#include "binding/call.h"
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

// Lives until libuv has closed the handle, which is after the Watch.
struct Watch::Handle {
  napi_env env;
  std::function<void()> readable;
  uv_handle_s* uv;

  static void Closed(uv_handle_s* uv) {
    auto* self = static_cast<Handle*>(uv->data);
    ::operator delete(uv);
    delete self;
  }

  static void Polled(uv_handle_s* uv, int, int) {
    auto* self = static_cast<Handle*>(uv->data);
    if (!self->readable) return;
    Napi::Env env(self->env);
    Napi::HandleScope scope(env);
    auto readable = self->readable;  // the callback may end the watch
    try {
      readable();
    } catch (const Napi::Error& error) {
      napi_fatal_exception(self->env, error.Value());
    } catch (const SysError& error) {
      napi_fatal_exception(self->env, ToJs(env, error).Value());
    }
  }
};

Watch::Watch(Napi::Env env, int fd, std::function<void()> readable) {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw SysError(EINVAL, "napi_get_uv_event_loop");
  auto* uv = static_cast<uv_handle_s*>(::operator new(uv_handle_size(kUvPoll)));
  handle_ = new Handle{env, std::move(readable), uv};
  uv->data = handle_;
  if (int err = uv_poll_init(loop, uv, fd); err < 0) {
    Handle::Closed(uv);
    throw SysError(-err, "uv_poll_init");
  }
  uv->data = handle_;
  if (int err = uv_poll_start(uv, kUvReadable, &Handle::Polled); err < 0) {
    uv_close(uv, &Handle::Closed);
    throw SysError(-err, "uv_poll_start");
  }
}

Watch::~Watch() {
  handle_->readable = nullptr;
  uv_poll_stop(handle_->uv);
  uv_close(handle_->uv, &Handle::Closed);
}

void Watch::Ref(bool keep) {
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
  Napi::Object handle = Napi::Object::New(env);
  handle.Set("close", Napi::Function::New(env, [watch](const Napi::CallbackInfo&) { watch->reset(); }));
  handle.Set("ref", Napi::Function::New(env, [watch](const Napi::CallbackInfo& args) {
               if (*watch) (*watch)->Ref(args[0].ToBoolean());
             }));
  return handle;
}

}  // namespace vioctl
