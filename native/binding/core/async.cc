#include "binding/core/async.h"

#include <exception>
#include <utility>

#include "binding/core/call.h"

namespace vioctl {
namespace {

class Work final : public Napi::AsyncWorker {
 public:
  Work(Napi::Env env, std::function<void()> work, std::function<Napi::Value(Napi::Env)> result,
       std::function<void()> ended)
      : AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        result_(std::move(result)),
        ended_(std::move(ended)) {
    if (ended_) napi_add_env_cleanup_hook(env, &Work::Ended, this);
  }
  ~Work() override {
    if (ended_) napi_remove_env_cleanup_hook(Env(), &Work::Ended, this);
  }
  Napi::Value promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      work_();
    } catch (...) {
      failure_ = std::current_exception();
    }
  }

  void OnOK() override {
    Napi::Env env = Env();
    try {
      if (failure_) std::rethrow_exception(failure_);
      deferred_.Resolve(result_(env));
    } catch (const SysError& error) {
      deferred_.Reject(ToJs(env, error).Value());
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    } catch (const std::exception& error) {
      deferred_.Reject(Napi::Error::New(env, error.what()).Value());
    }
  }

 private:
  static void Ended(void* self) { static_cast<Work*>(self)->ended_(); }

  Napi::Promise::Deferred deferred_;
  std::function<void()> work_;
  std::function<Napi::Value(Napi::Env)> result_;
  std::function<void()> ended_;
  std::exception_ptr failure_;
};

}  // namespace

Napi::Value RunAsync(Napi::Env env, std::function<void()> work, std::function<Napi::Value(Napi::Env)> result,
                     std::function<void()> ended) {
  auto* worker = new Work(env, std::move(work), std::move(result), std::move(ended));  // deletes itself when done
  const Napi::Value promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace vioctl
