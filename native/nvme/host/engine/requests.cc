// Requests of a host: cut into commands, given to queues, repeated where that may help, and answered.
#include <algorithm>
#include <cstring>

#include "nvme/host/engine/engine.h"
#include "nvme/host/engine/repeat.h"
#include "os/clock.h"

namespace vioctl::nvme::host {
namespace {

using storage::Op;

constexpr uint32_t kMaxTries = 5;             // of a command that the controller has not carried out
constexpr uint32_t kMaxBlocks = 65'536;       // of one command
constexpr uint32_t kMaxDiscard = 1u << 30;    // bytes of one range
constexpr uint32_t kAttributeDeallocate = 4;  // AD of Dataset Management
constexpr int kCrdShift = 11;                 // CRD in a status

// Whether data differs afterwards: also where blocks are deallocated, which may read as zeroes from then on.
bool Alters(Op op) { return op == Op::kWrite || op == Op::kZero || op == Op::kDiscard; }

bool Writes(const Task* task) { return task && task->op != Op::kRead && task->op != Op::kCompare; }

}  // namespace

// --- sending

// The best path that has room, and its least loaded queue.
Queue* Engine::Pick(Path** chosen) {
  Queue* best = nullptr;
  for (const AnaState wanted : {kAnaOptimized, kAnaNonOptimized}) {
    for (size_t i = 0; i < paths_.size(); i++) {
      Path& path = *paths_[(turn_ + i) % paths_.size()];
      if (!path.usable() || path.state != wanted || path.failed != 0) continue;
      for (const auto& queue : path.live->io())
        if (!queue->full() && (!best || queue->outstanding() < best->outstanding())) {
          best = queue.get();
          *chosen = &path;
        }
    }
    // An optimized path that is full is waited for: the others are slower.
    if (best ||
        std::any_of(paths_.begin(), paths_.end(), [&](const auto& p) { return p->usable() && p->state == wanted; }))
      break;
  }
  if (best) turn_++;
  return best;
}

uint32_t Engine::Limit(Op op, const Path& path) const {
  const Controller& controller = path.live->controller();
  const uint64_t blocks = static_cast<uint64_t>(kMaxBlocks) * facts_.block_size;
  if (op == Op::kDiscard) return kMaxDiscard;
  return static_cast<uint32_t>(std::min<uint64_t>(blocks, controller.max_transfer));
}

Part* Engine::NewPart() {
  if (part_free_.empty()) {
    part_store_.emplace_back();
    part_free_.push_back(&part_store_.back());
  }
  Part* part = part_free_.back();
  part_free_.pop_back();
  part->sqe = {};
  part->parts = nullptr;
  part->count = 0;
  part->skip = part->length = 0;
  part->direction = kNoData;
  part->owner = this;
  part->done = &Engine::Done;
  part->timeout = options_.timeout_ms * os::kMs;
  return part;
}

// A command's namespace and blocks.
void Engine::Aim(Part& part) const {
  const uint64_t slba = part.offset / facts_.block_size;
  part.sqe.nsid = facts_.nsid;
  part.sqe.cdw10 = static_cast<uint32_t>(slba);
  part.sqe.cdw11 = static_cast<uint32_t>(slba >> 32);
  part.sqe.cdw12 = part.bytes / facts_.block_size - 1;
}

// Makes a part a Dataset Management command that deallocates its blocks.
void Engine::Deallocate(Part& part) const {
  part.range = {0, part.bytes / facts_.block_size, part.offset / facts_.block_size};
  part.own = {&part.range, sizeof part.range};
  part.sqe.opcode = kDsm;
  part.sqe.cdw10 = part.sqe.cdw12 = 0;
  part.sqe.cdw11 = kAttributeDeallocate;
  part.direction = kToController;
  part.parts = &part.own;
  part.count = 1;
  part.length = sizeof part.range;
}

// The command that a part is on this path.
void Engine::Build(Part& part, Task& task, Path& path) {
  const storage::Request* request = task.request;
  Sqe& sqe = part.sqe;
  Aim(part);
  const auto data = [&](Direction direction) {
    part.direction = direction;
    part.parts = request->parts;
    part.count = request->count;
    part.skip = part.offset - request->offset;
    part.length = part.bytes;
  };
  if (request && request->durable && (task.op == Op::kWrite || task.op == Op::kZero)) sqe.cdw12 |= kFua;
  switch (task.op) {
    case Op::kRead:
      sqe.opcode = kRead;
      return data(kToHost);
    case Op::kWrite:
      sqe.opcode = kWrite;
      return data(kToController);
    case Op::kCompare:
      sqe.opcode = kCompare;
      return data(kToController);
    case Op::kFlush:
      sqe.opcode = kFlush;
      sqe.cdw10 = sqe.cdw11 = sqe.cdw12 = 0;
      return;
    case Op::kZero:
      if (path.live->controller().can_zero) {
        sqe.opcode = kWriteZeroes;
        if (request->deallocate) sqe.cdw12 |= kDeallocate;
        return;
      }
      sqe.opcode = kWrite;
      part.own = {Zeroes(part.bytes), part.bytes};
      part.direction = kToController;
      part.parts = &part.own;
      part.count = 1;
      part.length = part.bytes;
      return;
    case Op::kDiscard:
      return Deallocate(part);
  }
}

// Gives a command to a queue of a path, which has room.
void Engine::Start(Task* task, Path& path, Queue& queue, uint64_t offset, uint32_t bytes, uint32_t tries,
                   uint64_t now) {
  Part* part = NewPart();
  part->task = task;
  part->path = &path;
  part->offset = offset;
  part->bytes = bytes;
  part->tries = tries;
  Build(*part, *task, path);
  if (task->op == Op::kFlush) task->covers = Changes();
  if (Writes(task)) writing_++;
  queue.Submit(part, now);
}

void Engine::Issue(uint64_t now) {
  if (now < hold_until_) return;
  Path* path = nullptr;
  if (!Pick(&path)) return;
  if (replay_due_ && !Replay(now)) return;
  if (!IssueAgain(now)) return;
  if (unflushed_.wants_flush() && !flushing_) FlushOwn();
  while (!pending_.empty()) {
    Task* task = pending_.front();
    if (unflushed_.full() && Alters(task->op)) return;  // its flush is under way
    do {
      Queue* queue = Pick(&path);
      if (!queue) return;
      const auto bytes = static_cast<uint32_t>(std::min<uint64_t>(task->end - task->next, Limit(task->op, *path)));
      task->parts++;
      Start(task, *path, *queue, task->next, bytes, 0, now);
      task->next += bytes;
    } while (task->next < task->end && task->err == 0);
    pending_.pop_front();
  }
}

// True if nothing is left that could be repeated now.
bool Engine::IssueAgain(uint64_t now) {
  for (size_t i = 0; i < again_.size();) {
    Again& again = again_[i];
    if (again.at > now) {
      i++;
      continue;
    }
    Path* path = nullptr;
    Queue* queue = Pick(&path);
    if (!queue) return false;
    // Another path may take less at a time.
    const uint32_t bytes = std::min(again.bytes, Limit(again.task->op, *path));
    Start(again.task, *path, *queue, again.offset, bytes, again.tries, now);
    if (bytes < again.bytes) {
      again.task->parts++;
      again.offset += bytes;
      again.bytes -= bytes;
      continue;
    }
    again_.erase(again_.begin() + static_cast<ptrdiff_t>(i));
  }
  return true;
}

// A flush of our own, so that little is unflushed.
void Engine::FlushOwn() {
  auto* task = new Task;
  task->op = Op::kFlush;
  flushing_ = true;
  pending_.push_front(task);
}

// --- answers

void Engine::Done(Command* command, int err) {
  auto* part = static_cast<Part*>(command);
  auto* engine = static_cast<Engine*>(part->owner);
  if (part->task)
    engine->Ended(*part, err);
  else
    engine->ReplayEnded(*part, err);
  engine->part_free_.push_back(part);
}

void Engine::Repeat(Part& part, uint64_t delay_ms, uint64_t now) {
  again_.push_back({part.task, part.offset, part.bytes, part.tries, delay_ms == 0 ? 0 : now + delay_ms * os::kMs});
}

void Engine::Ended(Part& part, int err) {
  Task* task = part.task;
  if (Writes(task)) writing_--;
  const Status status = err == 0 ? part.status() : kOk;
  if (err == 0) part.path->failures = 0;  // it does answer
  if (err == 0 && status == kOk) {
    Acknowledged(part);
    return PartOver(task);
  }
  const uint64_t now = os::NowNs();
  if (err == ESHUTDOWN) {
    task->err = err;
    return PartOver(task);
  }
  // The connection is lost, or the answer came damaged.
  if (err != 0) {
    const uint32_t most = err == EBADMSG ? kMaxTries : kMaxLosses;
    part.tries += part.aborted ? kTimedOutTries : 1;
    if (part.tries <= most) return Repeat(part, 0, now);
    task->err = err == EBADMSG ? EBADMSG : EIO;
    return PartOver(task);
  }
  if (OfPath(status) && !(status & kDnr)) {
    // Another path, or this one once it says that it is good again.
    failure.store(status);
    part.path->stale = true;
    if (part.path->live->controller().groups > 0) part.path->state = kAnaInaccessible;
    if (++part.tries <= kMaxLosses) return Repeat(part, paths_.size() > 1 ? 0 : kRetryMs, now);
  }
  if (Repeats(status) && ++part.tries <= kMaxTries) {
    const uint32_t crd = (part.cqe.status >> (kCrdShift + 1)) & 3;
    const uint64_t told = crd == 0 ? 0 : part.path->live->controller().retry_delay_ms[crd - 1];
    return Repeat(part, told == 0 ? kRetryMs : told, now);
  }
  failure.store(status);
  if (task->err == 0) task->err = ErrnoOf(status);
  PartOver(task);
}

// What a success means for the data that may be in a volatile cache.
void Engine::Acknowledged(Part& part) {
  Task* task = part.task;
  if (task->op == Op::kFlush) {
    if (options_.replay)
      unflushed_.Flushed(task->covers);
    else
      durable_ = std::max(durable_, task->covers);
    return;
  }
  if (!Alters(task->op) || !controller_.volatile_cache || options_.loss_ms == 0) return;
  const bool durable = task->request->durable;
  if (!options_.replay)
    acknowledged_ += durable ? 0 : 1;
  else
    unflushed_.Add(task->op, task->request->deallocate, durable, part.offset, part.bytes, part.parts, part.skip);
}

void Engine::PartOver(Task* task) {
  task->parts--;
  if (task->parts > 0 || (task->next < task->end && task->err == 0)) return;
  // A request that failed in the middle may still wait for the rest of it.
  if (task->next < task->end) std::erase(pending_, task);
  Complete(task);
}

void Engine::Complete(Task* task) {
  if (!task->request) {
    flushing_ = false;
    // A target that cannot flush: nobody would ever be done waiting for it. Whoever flushes next is told.
    if (task->err != 0 && task->err != ESHUTDOWN && task->err != ENOTCONN) {
      maybe_lost_ = true;
      unflushed_.Flushed(task->covers);
    }
    delete task;
    return;
  }
  int err = task->err;
  if (task->op == Op::kFlush && err == 0 && std::exchange(maybe_lost_, false)) err = EIO;
  storage::Request* request = task->request;
  delete task;
  request->result = err;
  request->done(request);
}

// Requests that wait are given up; those that are outstanding are not here.
void Engine::FailAll(int err) {
  std::deque<Again> again;
  again.swap(again_);
  std::deque<Task*> pending;
  pending.swap(pending_);
  for (const Again& one : again) {
    one.task->err = err;
    if (std::find(pending.begin(), pending.end(), one.task) == pending.end()) {
      if (--one.task->parts == 0) Complete(one.task);
    } else {
      one.task->parts--;
    }
  }
  for (Task* task : pending) {
    task->err = err;
    if (task->parts == 0) Complete(task);
  }
}

}  // namespace vioctl::nvme::host
