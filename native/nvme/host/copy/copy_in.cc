// A descriptor into a namespace.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "nvme/host/copy/input.h"
#include "nvme/host/copy/transfer.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint64_t kFlushEvery = 256 << 20;  // bytes: how far a write has come is known that exactly
constexpr uint64_t kZeroMost = 32 << 20;     // bytes of one request for zeroes

class Writer : Transfer {
 public:
  Writer(Host& host, const CopyOptions& options, CopyState& state, Input& input)
      : Transfer(host, options, state), input_(input) {}
  CopyResult Run();

 private:
  bool Fill(Slot& slot);
  bool Merge(Slot& slot, uint64_t head, uint64_t have, uint64_t whole);
  void Broken(uint64_t at, int err, Where where);
  void Written(Slot& slot);
  uint64_t Prefix() const;
  void FlushSome(bool last);

  Input& input_;
  uint64_t flushed_at_ = 0, covers_ = 0;
  uint64_t broken_at_ = UINT64_MAX;  // where the first write failed
  bool ended_ = false;               // there is no more input
};

// Reads the blocks that the data does not fill. False: that failed.
bool Writer::Merge(Slot& slot, uint64_t head, uint64_t have, uint64_t whole) {
  uint8_t* buffer = slot.buffer.get();
  const uint64_t first = options_.offset + slot.at - head;
  std::vector<uint8_t> data(buffer + head, buffer + head + have);
  const auto read = [&](uint64_t block) {
    Submit(slot, Op::kRead, first + block, block_, true);
    if (const int err = AwaitOne(slot)) {
      Fail(err, Where::kNamespace);
      return false;
    }
    result_.merged_blocks++;
    if (block > 0) memmove(buffer + block, buffer, block_);
    return true;
  };
  // The last block first: each is read into the beginning of the buffer.
  const bool tail = (head + have) % block_ != 0 && (whole > block_ || head == 0);
  if (tail && !read(whole - block_)) return false;
  if (head != 0 && !read(0)) return false;
  memcpy(buffer + head, data.data(), have);
  return true;
}

// Takes input into a slot and starts its write. False: there was none.
bool Writer::Fill(Slot& slot) {
  const uint64_t start = options_.offset + next_, head = start % block_;
  const uint64_t room = options_.length - next_;
  uint8_t* buffer = Buffer(slot);
  slot.at = next_;
  if (head == 0 && room > 0) {
    const uint64_t hole = std::min({input_.HoleAt(next_), room, kZeroMost}) / block_ * block_;
    if (hole > 0 && host_.controller().can_zero) {
      slot.size = hole;
      next_ += hole;
      Submit(slot, Op::kZero, start, hole, false);
      return true;
    }
  }
  const uint64_t wanted = std::min(chunk_ - head, room);
  slot.input = head == 0 && wanted % block_ == 0 ? input_.Look(next_, wanted) : nullptr;
  uint64_t have = slot.input ? wanted : 0;
  while (have < wanted && !ended_) {
    const ssize_t n = input_.Read(buffer + head + have, wanted - have, next_ + have);
    if (n < 0) {
      Fail(errno, errno == ECANCELED ? Where::kNone : Where::kInput);
      return false;
    }
    if (n == 0) ended_ = true;
    have += static_cast<uint64_t>(n);
  }
  if (room == 0 && !ended_) {
    // Only whether there is more: it is not taken.
    uint8_t byte;
    const ssize_t n = input_.Read(&byte, 1, next_);
    result_.overlong = n > 0;
    ended_ = true;
  }
  if (have == 0) return false;
  slot.size = have;
  const uint64_t whole = (head + have + block_ - 1) / block_ * block_;
  next_ += have;
  if (whole != have && !Merge(slot, head, have, whole)) {
    slot.busy = false;
    broken_at_ = std::min(broken_at_, slot.at);
    return false;
  }
  const bool zero = host_.controller().can_zero && AllZero(slot.input ? slot.input : buffer, whole);
  Submit(slot, zero ? Op::kZero : Op::kWrite, start - head, whole, !zero);
  return true;
}

// Everything below this has been acknowledged.
uint64_t Writer::Prefix() const {
  uint64_t prefix = std::min(next_, broken_at_);
  for (const Slot& slot : slots_)
    if (slot.busy) prefix = std::min(prefix, slot.at);
  return prefix;
}

// What is written from there on is not what it should be.
void Writer::Broken(uint64_t at, int err, Where where) {
  broken_at_ = std::min(broken_at_, at);
  result_.durable = std::min(result_.durable, at);
  Fail(err, where);
}

void Writer::Written(Slot& slot) {
  slot.busy = false;
  const uint8_t* looked = std::exchange(slot.input, nullptr);
  if (looked) input_.Leave(looked, slot.size);
  if (&slot == &flush_) {
    if (slot.result == 0) return void(result_.durable = covers_);
    return Fail(slot.result, Where::kNamespace);
  }
  if (slot.result != 0) return Broken(slot.at, slot.result, Where::kNamespace);
  if (looked && input_.cut()) return Broken(slot.at, EIO, Where::kCut);
  state_.done.fetch_add(slot.size, std::memory_order_relaxed);
}

void Writer::FlushSome(bool last) {
  if (flush_.busy) return;
  const uint64_t prefix = Prefix();
  if (!last && prefix < flushed_at_ + kFlushEvery) return;
  flushed_at_ = covers_ = prefix;
  Submit(flush_, Op::kFlush, 0, 0, false);
}

CopyResult Writer::Run() {
  while (true) {
    while (Slot* slot = ended_ || Failed() ? nullptr : Free())
      if (!Fill(*slot)) break;
    if (result_.err == 0) FlushSome(false);
    if (!Await()) {
      if (ended_ || Failed()) break;
      continue;
    }
    while (Slot* slot = TakeOver()) Written(*slot);
  }
  // A page that was cut has zeroes at its end, without further notice.
  if (const uint64_t left = input_.Left(); left < next_) Broken(left, EIO, Where::kCut);
  result_.bytes = Prefix();
  // What was acknowledged is made durable even if something failed: the user is told how far it is good.
  if (result_.where != Where::kNamespace || host_.paths().live > 0) {
    FlushSome(true);
    while (Await())
      while (Slot* slot = TakeOver()) Written(*slot);
  }
  if (options_.fua || !host_.controller().volatile_cache) result_.durable = result_.bytes;
  input_.End(result_.bytes);
  return result_;
}

}  // namespace

CopyResult WriteFrom(Host& host, const CopyOptions& options, CopyState& state) {
  Input input(options.fd, state.stop);  // lives longer: data is sent from where it lies
  return Writer(host, options, state, input).Run();
}

}  // namespace vioctl::nvme::host
