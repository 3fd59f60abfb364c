#include "nvme/host/copy/transfer.h"

#include <algorithm>
#include <chrono>
#include <new>

#include "storage/direct.h"

namespace vioctl::nvme::host {
namespace {

constexpr size_t kMaxMemory = 64 << 20;  // of all buffers

}  // namespace

Transfer::Transfer(Host& host, const CopyOptions& options, CopyState& state)
    : host_(host), options_(options), state_(state), block_(host.facts().block_size) {
  const uint64_t most = std::min<uint64_t>(options.chunk, host.controller().max_transfer);
  chunk_ = std::max<uint64_t>(block_, most / block_ * block_);
  const size_t count = std::clamp<size_t>(kMaxMemory / chunk_, 2, options.depth);
  slots_.resize(std::max<size_t>(1, std::min<size_t>(count, options.depth)));
}

Transfer::~Transfer() {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return out_ == 0; });
}

void Transfer::Fail(int err, Where where) {
  if (result_.err != 0) return;
  result_.err = err;
  result_.where = where;
}

bool Transfer::Failed() {
  if (state_.stop.load(std::memory_order_relaxed)) Fail(ECANCELED, Where::kNone);
  return result_.err != 0;
}

Slot* Transfer::Free() {
  for (Slot& slot : slots_)
    if (!slot.busy) return &slot;
  return nullptr;
}

uint8_t* Transfer::Buffer(Slot& slot) {
  if (!slot.buffer) {
    void* memory = nullptr;
    if (::posix_memalign(&memory, storage::kBufferAlignment, chunk_) != 0) throw std::bad_alloc();
    slot.buffer.reset(static_cast<uint8_t*>(memory));
  }
  return slot.buffer.get();
}

void Transfer::Submit(Slot& slot, Op op, uint64_t offset, uint64_t length, bool data) {
  slot.transfer = this;
  slot.op = op;
  slot.durable = options_.fua && (op == Op::kWrite || op == Op::kZero);
  slot.deallocate = options_.deallocate && op == Op::kZero;
  slot.offset = offset;
  slot.length = length;
  slot.part = {slot.input ? const_cast<uint8_t*>(slot.input) : slot.buffer.get(), length};
  slot.parts = data ? &slot.part : nullptr;
  slot.count = data ? 1 : 0;
  slot.result = 0;
  slot.busy = true;
  slot.over = false;
  slot.done = [](storage::Request* request) {
    auto* ended = static_cast<Slot*>(request);
    Transfer& transfer = *ended->transfer;
    // Under the lock: the transfer is gone as soon as it sees that nothing is out.
    std::lock_guard guard(transfer.mutex_);
    ended->over = true;
    transfer.over_.push_back(ended);
    transfer.out_--;
    transfer.wake_.notify_one();
  };
  {
    std::lock_guard guard(mutex_);
    out_++;
  }
  host_.Submit(&slot);
}

Slot* Transfer::TakeOver() {
  std::lock_guard guard(mutex_);
  if (over_.empty()) return nullptr;
  Slot* slot = over_.back();
  over_.pop_back();
  return slot;
}

bool Transfer::Await() {
  std::unique_lock lock(mutex_);
  if (!over_.empty()) return true;
  if (out_ == 0) return false;
  wake_.wait_for(lock, std::chrono::milliseconds(kStopMs));
  return true;
}

int Transfer::AwaitOne(Slot& slot) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return slot.over; });
  std::erase(over_, &slot);
  return slot.result;
}

bool Transfer::Over(const Slot& slot) {
  std::lock_guard guard(mutex_);
  return slot.over;
}

}  // namespace vioctl::nvme::host
