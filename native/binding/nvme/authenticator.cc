#include "binding/nvme/authenticator.h"

#include <chrono>
#include <cstring>

#include "binding/core/answers.h"
#include "binding/core/call.h"
#include "binding/core/values.h"
#include "os/clock.h"

namespace vioctl::nvme::host {
namespace {

constexpr size_t kMaxWaiting = 4096;                   // queues that wait at a time
constexpr size_t kMaxMessage = 64 << 10;               // bytes
constexpr auto kLook = std::chrono::milliseconds(50);  // between looks at whether the connection is to end

// Whether the descriptor that stops a wait is readable.
bool Stopped(const Wait& wait) { return wait.stop >= 0 && !Wait::Sleep(0, wait.stop); }

void RunStep(Queue& queue, Authenticator::Step& step, const Wait& wait) {
  const iovec part{step.data.data(), step.data.size()};
  Command command;
  command.sqe = step.sqe;
  command.direction = step.data.empty() ? kNoData : step.direction;
  command.parts = &part;
  command.count = step.data.empty() ? 0 : 1;
  command.length = static_cast<uint32_t>(step.data.size());
  queue.Call(command, wait);
  step.status = command.status();
}

}  // namespace

void Authenticator::Exchange::Run(std::shared_ptr<Step> step) {
  {
    std::lock_guard guard(lock);
    if (!left) {
      steps.push_back(std::move(step));
      wake.notify_one();
      return;
    }
  }
  step->err = ECANCELED;
  step->ended();
}

void Authenticator::Exchange::End(int error) {
  std::lock_guard guard(lock);
  over = true;
  err = error;
  wake.notify_one();
}

void Authenticator::Authenticate(Queue& queue, const Connected& connected, const Wait& wait) {
  const auto exchange = std::make_shared<Exchange>();
  exchange->queue = connected;
  {
    std::lock_guard guard(lock_);
    if (closed_ || waiting_.size() >= kMaxWaiting) throw SysError(EACCES, "nvme", "nobody authenticates");
    waiting_.push_back(exchange);
    if (expected_) std::exchange(expected_, nullptr)();
  }
  std::unique_lock guard(exchange->lock);
  int err = 0;
  while (!exchange->over && err == 0) {
    if (exchange->steps.empty()) {
      exchange->wake.wait_for(guard, kLook);
      if (os::NowNs() >= wait.deadline) err = ETIMEDOUT;
      if (Stopped(wait)) err = ECANCELED;
      continue;
    }
    const std::shared_ptr<Step> step = std::move(exchange->steps.front());
    exchange->steps.pop_front();
    guard.unlock();
    try {
      RunStep(queue, *step, wait);
    } catch (const SysError& error) {
      step->err = err = error.err();
    }
    step->ended();
    guard.lock();
  }
  exchange->left = true;
  std::deque<std::shared_ptr<Step>> rest;
  rest.swap(exchange->steps);
  if (err == 0) err = exchange->err;
  guard.unlock();
  for (const auto& step : rest) {
    step->err = ECANCELED;
    step->ended();
  }
  if (err != 0) throw SysError(err, "authenticate");
}

std::shared_ptr<Authenticator::Exchange> Authenticator::Take() {
  std::lock_guard guard(lock_);
  if (waiting_.empty()) return nullptr;
  const auto exchange = std::move(waiting_.front());
  waiting_.pop_front();
  return exchange;
}

bool Authenticator::Expect(std::function<void()> ended) {
  std::lock_guard guard(lock_);
  if (expected_) return false;
  if (!waiting_.empty() || closed_)
    ended();
  else
    expected_ = std::move(ended);
  return true;
}

void Authenticator::Close() {
  std::lock_guard guard(lock_);
  closed_ = true;
  for (const auto& exchange : waiting_) exchange->End(EACCES);
  if (expected_) std::exchange(expected_, nullptr)();
}

// --- JavaScript

namespace {

Napi::Value ExchangeObject(Napi::Env env, const std::shared_ptr<Authenticator::Exchange>& exchange) {
  auto object = Napi::Object::New(env);
  object.Set("qid", exchange->queue.qid);
  object.Set("authreq", exchange->queue.authreq);
  // run(sqe, data, toHost): promise of {status, data}
  SetMethod<Kind::kBytes, Kind::kBytes, Kind::kBoolean>(
      object, "run", [exchange](const Napi::CallbackInfo& info) -> Napi::Value {
        const auto sqe = Bytes(info[0]), data = Bytes(info[1]);
        if (sqe.size() != sizeof(Sqe) || data.size() > kMaxMessage) throw SysError(EINVAL, "run", "command");
        auto step = std::make_shared<Authenticator::Step>();
        memcpy(&step->sqe, sqe.data(), sizeof(Sqe));
        step->data.assign(data.begin(), data.end());
        step->direction = info[2].As<Napi::Boolean>() ? kToHost : kToController;
        const auto start = [&](std::function<void()> ended) {
          step->ended = std::move(ended);
          exchange->Run(step);
        };
        return Answer(info.Env(), start, [step](Napi::Env in) -> Napi::Value {
          if (step->err != 0) throw SysError(step->err, "authenticate");
          auto answer = Napi::Object::New(in);
          answer.Set("status", Napi::Number::New(in, step->status));
          answer.Set("data", Napi::Buffer<uint8_t>::Copy(in, step->data.data(), step->data.size()));
          return answer;
        });
      });
  SetMethod<Kind::kInt32>(object, "end",
                          [exchange](const Napi::CallbackInfo& info) { exchange->End(info[0].As<Napi::Number>()); });
  return object;
}

}  // namespace

Napi::Value JsAuthenticatorNew(const Napi::CallbackInfo& info) {
  return NewHandle(info.Env(), std::make_shared<Authenticator>());
}

Napi::Value JsAuthenticatorNext(const Napi::CallbackInfo& info) {
  const auto authenticator = Share<Authenticator>(info[0]);
  const auto start = [&](std::function<void()> ended) {
    if (!authenticator->Expect(std::move(ended))) throw SysError(EBUSY, "authenticatorNext");
  };
  return Answer(info.Env(), start, [authenticator](Napi::Env env) -> Napi::Value {
    const auto exchange = authenticator->Take();
    return exchange ? ExchangeObject(env, exchange) : env.Undefined();
  });
}

Napi::Value JsAuthenticatorClose(const Napi::CallbackInfo& info) {
  if (const auto authenticator = TakeFrom<Authenticator>(info[0])) authenticator->Close();
  return info.Env().Undefined();
}

}  // namespace vioctl::nvme::host
