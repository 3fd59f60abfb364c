#include "binding/vhost_user/queue.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "binding/vhost_user.h"
#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

// A queue that JavaScript serves: few requests, whose readable part is copied out and whose answer is copied in.
struct Served {
  std::unique_ptr<Virtqueue> queue;
  Chain chain;
  struct Held {
    Chain chain;
    std::shared_ptr<const GuestMemory> memory;  // that the chain points into; none while the head is not held
  };
  std::vector<Held> held;  // by head index
  uint32_t taken = 0;      // of them held
};

Napi::Value Take(Napi::Env env, Served& served) {
  auto list = Napi::Array::New(env);
  uint32_t at = 0;
  for (bool asked = false; served.taken < kMaxTaken;) {
    const Pop pop = served.queue->Next(served.chain);
    if (pop == Pop::kBroken) throw SysError(EPROTO, "virtqueue", served.queue->error());
    if (pop == Pop::kEmpty) {
      if (asked) return list;
      served.queue->WantKicks(true);
      asked = true;
      continue;
    }
    const uint16_t head = served.chain.head;
    if (served.held[head].memory) throw SysError(EPROTO, "virtqueue", "a head index is made available twice");
    auto out = Napi::Buffer<uint8_t>::New(env, static_cast<size_t>(std::min(served.chain.out_size, kMaxCopied)));
    size_t done = 0;
    for (const iovec& part : served.chain.out) {
      const size_t size = std::min(part.iov_len, out.Length() - done);
      memcpy(out.Data() + done, part.iov_base, size);
      done += size;
    }
    auto request = Napi::Object::New(env);
    request.Set("head", static_cast<uint32_t>(head));
    request.Set("out", out);
    request.Set("inSize", static_cast<double>(served.chain.in_size));
    list.Set(at++, request);
    std::swap(served.held[head].chain, served.chain);
    served.held[head].memory = served.queue->memory();
    served.taken++;
  }
  return list;
}

Napi::Value Answer(Napi::Env env, Served& served, uint32_t head, const Napi::Uint8Array& answer) {
  if (head >= served.held.size() || !served.held[head].memory) throw SysError(EINVAL, "virtqueue", "head is not held");
  size_t done = 0;
  for (const iovec& part : served.held[head].chain.in) {
    const size_t size = std::min(part.iov_len, answer.ByteLength() - done);
    memcpy(part.iov_base, answer.Data() + done, size);
    done += size;
  }
  const Served::Held held = std::exchange(served.held[head], {});
  served.taken--;
  for (const iovec& part : held.chain.in) served.queue->LogWrite(*held.memory, part.iov_base, part.iov_len);
  served.queue->Put(held.chain, static_cast<uint32_t>(done));
  return Napi::Boolean::New(env, served.queue->ShouldNotify());
}

}  // namespace

Napi::Value JsQueue(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto layout = LayoutOf(info[1]);
  if (layout.features & kRingPacked) throw SysError(EINVAL, "virtqueue", "a packed ring is for native queues");
  auto served = std::make_shared<std::unique_ptr<Served>>(
      new Served{Virtqueue::Make(MemoryOf(info[0]), layout), {}, std::vector<Served::Held>(layout.num), 0});
  const auto open = [served]() -> Served& {
    if (!*served) throw SysError(EINVAL, "virtqueue", "the handle is closed");
    return **served;
  };
  using Info = const Napi::CallbackInfo&;
  auto object = Napi::Object::New(env);
  SetMethod(object, "take", [open](Info args) { return Take(args.Env(), open()); });
  SetMethod<Kind::kUint32, Kind::kBytes>(object, "answer", [open](Info args) {
    return Answer(args.Env(), open(), U32(args[0]), args[1].As<Napi::Uint8Array>());
  });
  SetMethod<Kind::kObject, Kind::kObject>(object, "setMemory", [open](Info args) {
    const auto memory = MemoryOf(args[0]);
    const auto next = LayoutOf(args[1]);
    open().queue->SetMemory(memory, next);
  });
  SetMethod(object, "base", [open](Info args) { return Napi::Number::New(args.Env(), open().queue->base()); });
  SetMethod(object, "close", [served](Info) { served->reset(); });
  return object;
}

}  // namespace vioctl::vhost_user
