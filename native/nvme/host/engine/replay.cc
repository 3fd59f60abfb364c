// Writes that a volatile cache has acknowledged and may have lost with its target: they are written again before
// anything else (storage/remote/unflushed.h).
#include <algorithm>

#include "common/assert.h"
#include "nvme/host/engine/engine.h"
#include "nvme/host/engine/repeat.h"
#include "os/clock.h"

namespace vioctl::nvme::host {
namespace {

using storage::Op;

constexpr size_t kReplayDepth = 32;

}  // namespace

uint8_t* Zeroes(uint32_t size) {
  static auto* const zeroes = new uint8_t[1 << 20]();  // never freed: threads outlive the end of main()
  VIOCTL_ASSERT(size <= 1 << 20);
  return zeroes;
}

bool Repeats(Status status) {
  if (status & kDnr) return false;
  switch (status & 0x7ff) {
    case kTransientTransport & 0x7ff:
    case kInterrupted & 0x7ff:
    case kNotReady & 0x7ff:
    case kAborted & 0x7ff:
    case kAbortedSq & 0x7ff:
      return true;
    default:
      return false;
  }
}

// Writes again what the lost target may have forgotten. True when all of it is done.
bool Engine::Replay(uint64_t now) {
  // What other paths still do would be overtaken.
  if (writing_ > 0 || (replay_next_ == 0 && !replaying_.empty())) return false;
  if (std::exchange(replay_refused_, false)) {
    maybe_lost_ = true;
    unflushed_.Clear();
  }
  const auto& entries = unflushed_.entries();
  if (!entries.empty() && replay_next_ == 0) {
    replay_next_ = entries.front().number;
    replay_at_ = 0;
  }
  while (!entries.empty() && replay_next_ <= unflushed_.Mark() && replaying_.size() < kReplayDepth) {
    const storage::Unflushed::Entry& entry = entries[replay_next_ - entries.front().number];
    const uint64_t from = entry.offset + replay_at_, end = entry.offset + entry.length;
    const bool overlaps = std::any_of(replaying_.begin(), replaying_.end(), [&](const Part* one) {
      return one->offset < end && from < one->offset + one->bytes;
    });
    Path* path = nullptr;
    Queue* queue = overlaps ? nullptr : Pick(&path);
    if (!queue) return false;
    ReplayPiece(entry, *path, *queue, now);
    if (replay_at_ < entry.length) continue;
    replay_next_++;
    replay_at_ = 0;
  }
  if (!replaying_.empty()) return false;
  replay_due_ = false;
  replay_next_ = 0;
  replay_failures_ = 0;
  replay_since_ = 0;
  if (!entries.empty() && events_.news) events_.news("replayed", 0);
  return true;
}

// Sends the next piece of an entry: this path may take less at a time than the one that took it whole.
void Engine::ReplayPiece(const storage::Unflushed::Entry& entry, Path& path, Queue& queue, uint64_t now) {
  Part* part = NewPart();
  part->task = nullptr;
  part->path = &path;
  part->offset = entry.offset + replay_at_;
  part->bytes = static_cast<uint32_t>(std::min<uint64_t>(entry.length - replay_at_, Limit(entry.op, path)));
  part->tries = 0;
  Aim(*part);
  const bool data = entry.op == Op::kWrite;
  if (entry.op == Op::kDiscard) {
    Deallocate(*part);
  } else {
    part->sqe.opcode = data || !path.live->controller().can_zero ? kWrite : kWriteZeroes;
    if (entry.durable) part->sqe.cdw12 |= kFua;
  }
  if (part->sqe.opcode == kWriteZeroes && entry.deallocate) part->sqe.cdw12 |= kDeallocate;
  if (part->sqe.opcode == kWrite) {
    part->own = {
        data ? const_cast<std::byte*>(entry.data.data() + replay_at_) : static_cast<void*>(Zeroes(part->bytes)),
        part->bytes};
    part->parts = &part->own;
    part->count = 1;
    part->length = part->bytes;
    part->direction = kToController;
  }
  replay_at_ += part->bytes;
  if (replay_since_ == 0) replay_since_ = now;
  replaying_.push_back(part);
  queue.Submit(part, now);
}

void Engine::ReplayEnded(Part& part, int err) {
  std::erase(replaying_, &part);
  if (err == 0 && part.status() == kOk) return;
  // From the beginning once more, on whatever path there is.
  replay_next_ = 0;
  if (err != 0) return;  // Lose() counts its path, not its parts
  failure.store(part.status());
  if (OfPath(part.status())) {
    part.path->stale = true;
    if (part.path->live->controller().groups > 0) part.path->state = kAnaInaccessible;
  } else if (!Repeats(part.status())) {
    replay_refused_ = true;
    return;
  }
  hold_until_ = os::NowNs() + kRetryMs * os::kMs;
  ReplayFailed(1);
}

// Requests wait behind it, so it is not tried for ever: a target that says no again and again, or dies of it, has lost
// what it forgot.
void Engine::ReplayFailed(uint32_t worth) {
  replay_failures_ += worth;
  if (replay_failures_ > kMaxLosses || os::NowNs() - replay_since_ >= options_.loss_ms * os::kMs)
    replay_refused_ = true;
}

// Before a path is lost: what it has left open of the replay.
void Engine::ReplayLost(const Path& path) {
  uint32_t worth = 0;
  for (const Part* part : replaying_)
    if (part->path == &path) worth = std::max(worth, part->aborted ? kTimedOutTries : 1);
  if (worth > 0) ReplayFailed(worth);
}

}  // namespace vioctl::nvme::host
