#include "binding/nvme/lone_queue.h"

#include <cstring>

#include "binding/core/answers.h"
#include "binding/core/call.h"
#include "binding/core/values.h"
#include "binding/nvme/namespace.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint32_t kMaxData = 16 << 20;  // of one command

// The command that JavaScript describes: {sqe, out} or {sqe, size}, timeoutMs, inCapsule.
std::shared_ptr<LoneCommand> CommandOf(const Napi::Object& given) {
  auto command = std::make_shared<LoneCommand>();
  const auto sqe = Bytes(Field(given, "sqe", Kind::kBytes));
  if (sqe.size() != sizeof(Sqe)) throw SysError(EINVAL, "queueRun", "sqe");
  memcpy(&command->sqe, sqe.data(), sizeof(Sqe));
  const uint32_t size = U32(Field(given, "size", Kind::kUint32));
  if (const Napi::Value out = Field(given, "out", Maybe(Kind::kBytes)); !out.IsUndefined()) {
    const auto bytes = Bytes(out);
    command->data.assign(bytes.begin(), bytes.end());
    command->direction = command->data.empty() ? kNoData : kToController;
  } else if (size > 0) {
    if (size <= kMaxData) command->data.resize(size);
    command->direction = kToHost;
  }
  if (size > kMaxData || command->data.size() > kMaxData) throw SysError(EINVAL, "queueRun", "data");
  command->timeout = U32(Field(given, "timeoutMs", Kind::kUint32)) * 1'000'000ull;
  command->in_capsule = U32(Field(given, "inCapsule", Kind::kUint32));
  return command;
}

}  // namespace

Napi::Value JsQueueOpen(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  const auto number = [&](const char* name) { return U32(Field(given, name, Kind::kUint32)); };
  const auto flag = [&](const char* name) { return Field(given, name, Kind::kBoolean).As<Napi::Boolean>().Value(); };
  const uint32_t port = number("port"), qid = number("qid"), entries = number("entries");
  if (port == 0 || port > UINT16_MAX || qid > UINT16_MAX || entries < 2 || entries > kMaxEntries)
    throw SysError(EINVAL, "queueOpen", "options");
  const QueueOptions options{.qid = static_cast<uint16_t>(qid),
                             .entries = entries,
                             .header_digest = flag("headerDigest"),
                             .data_digest = flag("dataDigest")};
  const auto queue =
      std::make_shared<LoneQueue>(Address{Text(Field(given, "host", Kind::kPath)), static_cast<uint16_t>(port)},
                                  options, number("timeoutMs"), DialerOf(Field(given, "tls", Maybe(Kind::kArray))));
  // Its thread ends when nobody has it any more: the handle, or an environment that has ended before there was one.
  const std::shared_ptr<LoneQueue> held(queue.get(), [queue](LoneQueue*) { queue->Close(); });
  return Answer(
      info.Env(), [&](std::function<void()> ended) { queue->Open(std::move(ended)); },
      [held](Napi::Env env) -> Napi::Value {
        if (const auto failure = held->failure()) throw *failure;
        return NewHandle(env, held);
      });
}

Napi::Value JsQueueRun(const Napi::CallbackInfo& info) {
  const auto queue = Share<LoneQueue>(info[0]);
  const auto command = CommandOf(info[1].As<Napi::Object>());
  const auto start = [&](std::function<void()> ended) {
    command->ended = std::move(ended);
    queue->Run(command);
  };
  return Answer(info.Env(), start, [command](Napi::Env env) -> Napi::Value {
    if (command->failure) throw *command->failure;
    auto answer = Napi::Object::New(env);
    answer.Set("status", Napi::Number::New(env, command->cqe.status));
    answer.Set("dw0", Napi::Number::New(env, static_cast<double>(command->cqe.result & UINT32_MAX)));
    answer.Set("dw1", Napi::Number::New(env, static_cast<double>(command->cqe.result >> 32)));
    answer.Set("sqhd", Napi::Number::New(env, command->cqe.sqhd));
    answer.Set("nanoseconds", Napi::Number::New(env, static_cast<double>(command->took)));
    if (command->direction == kToHost)
      answer.Set("data", Napi::Buffer<uint8_t>::Copy(env, command->data.data(), command->moved));
    return answer;
  });
}

Napi::Value JsQueueOver(const Napi::CallbackInfo& info) {
  const auto queue = Share<LoneQueue>(info[0]);
  return Answer(
      info.Env(), [&](std::function<void()> ended) { queue->WhenOver(std::move(ended)); },
      [queue](Napi::Env) -> Napi::Value { throw *queue->failure(); });
}

Napi::Value JsQueueClose(const Napi::CallbackInfo& info) {
  if (const auto queue = TakeFrom<LoneQueue>(info[0])) queue->Close();
  return info.Env().Undefined();
}

}  // namespace vioctl::nvme::host
