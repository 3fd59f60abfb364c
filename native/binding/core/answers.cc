#include "binding/core/answers.h"

#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "binding/core/call.h"
#include "binding/core/watch.h"
#include "os/eventfd.h"

namespace vioctl {
namespace {

// The answers that one environment waits for. Threads hold it as well, and only touch what is behind the mutex.
class Mailbox : public std::enable_shared_from_this<Mailbox> {
 public:
  explicit Mailbox(Napi::Env env)
      : env_(env), wake_(os::NewEventfd()), context_(std::make_unique<Napi::AsyncContext>(env, "vioctl:answers")) {}

  static std::shared_ptr<Mailbox> Of(Napi::Env env);

  uint64_t Expect(const Napi::Promise::Deferred& deferred, std::function<Napi::Value(Napi::Env)> result) {
    if (!watch_)
      watch_ = std::make_unique<Watch>(env_, wake_.get(), [self = weak_from_this()] {
        if (const auto mailbox = self.lock()) mailbox->Deliver();
      });
    watch_->Ref(true);
    expected_.emplace(++last_, Expected{deferred, std::move(result)});
    return last_;
  }
  void Forget(uint64_t id) {
    expected_.erase(id);
    if (expected_.empty()) watch_->Ref(false);
  }

  // From any thread.
  void Post(uint64_t id) {
    std::lock_guard lock(mutex_);
    ended_.push_back(id);
    if (ended_.size() == 1) os::SignalPeer(wake_.get(), true);
  }

 private:
  struct Expected {
    Napi::Promise::Deferred deferred;
    std::function<Napi::Value(Napi::Env)> result;
  };

  static void EnvironmentEnds(void* env);
  static std::unordered_map<napi_env, std::shared_ptr<Mailbox>>& All() {
    static auto* const all = new std::unordered_map<napi_env, std::shared_ptr<Mailbox>>;
    return *all;
  }
  static std::mutex& AllMutex() {
    static auto* const mutex = new std::mutex;
    return *mutex;
  }

  void Deliver() {
    os::TakeEventfd(wake_.get());
    std::vector<uint64_t> ended;
    {
      std::lock_guard lock(mutex_);
      ended.swap(ended_);
    }
    const Napi::CallbackScope scope(env_, *context_);
    for (const uint64_t id : ended) {
      const auto found = expected_.find(id);
      if (found == expected_.end()) continue;
      const Expected expected = std::move(found->second);
      expected_.erase(found);
      Settle(expected);
    }
    if (expected_.empty()) watch_->Ref(false);
  }

  void Settle(const Expected& expected) const {
    try {
      expected.deferred.Resolve(expected.result(env_));
    } catch (const SysError& error) {
      expected.deferred.Reject(ToJs(env_, error).Value());
    } catch (const Napi::Error& error) {
      expected.deferred.Reject(error.Value());
    } catch (const std::exception& error) {
      expected.deferred.Reject(Napi::Error::New(env_, error.what()).Value());
    }
  }

  const Napi::Env env_;
  const Fd wake_;
  std::unique_ptr<Napi::AsyncContext> context_;
  std::unique_ptr<Watch> watch_;
  std::unordered_map<uint64_t, Expected> expected_;
  uint64_t last_ = 0;
  std::mutex mutex_;
  std::vector<uint64_t> ended_;
};

std::shared_ptr<Mailbox> Mailbox::Of(Napi::Env env) {
  std::lock_guard lock(AllMutex());
  auto& mailbox = All()[env];
  if (!mailbox) {
    mailbox = std::make_shared<Mailbox>(env);
    napi_add_env_cleanup_hook(env, &Mailbox::EnvironmentEnds, static_cast<napi_env>(env));
  }
  return mailbox;
}

// What JavaScript would be told is dropped on its thread; threads that end later post to a mailbox that nobody empties.
void Mailbox::EnvironmentEnds(void* env) {
  std::shared_ptr<Mailbox> mailbox;
  {
    std::lock_guard lock(AllMutex());
    const auto found = All().find(static_cast<napi_env>(env));
    mailbox = std::move(found->second);
    All().erase(found);
  }
  mailbox->watch_.reset();
  mailbox->expected_.clear();
  mailbox->context_.reset();
}

}  // namespace

Napi::Value Answer(Napi::Env env, const std::function<void(std::function<void()> ended)>& start,
                   std::function<Napi::Value(Napi::Env)> result) {
  const auto mailbox = Mailbox::Of(env);
  const auto deferred = Napi::Promise::Deferred::New(env);
  const uint64_t id = mailbox->Expect(deferred, std::move(result));
  try {
    start([mailbox, id] { mailbox->Post(id); });
  } catch (...) {
    mailbox->Forget(id);
    throw;
  }
  return deferred.Promise();
}

}  // namespace vioctl
