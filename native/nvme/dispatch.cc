// Where the requests of a worker are done: by its own thread, which may lose the loop over it, in its ring, or by the
// executor.
#include <algorithm>
#include <chrono>
#include <limits>
#include <new>

#include "common/assert.h"
#include "common/error.h"
#include "nvme/connection.h"
#include "nvme/worker.h"
#include "os/clock.h"
#include "os/eventfd.h"
#include "uring/refusal.h"

namespace vioctl::nvme {
namespace {

constexpr uint32_t kRingEntries = 256;
constexpr uint32_t kRingThreads = 64;  // of the kernel, for what a ring cannot do at once
constexpr uint32_t kRingThreadsPerSource = 8;
// Past the page cache, of one source in all rings: less than the threads, since a device that has no room for more
// keeps one for each.
constexpr uint32_t kDirectPerSource = 48;
constexpr uint64_t kGather = 20'000;                  // ns that an answer waits for others that are about to come
constexpr uint64_t kStint = 500'000;                  // ns that the loop's thread writes at a time
constexpr uint32_t kUntimed = 4;                      // writes of one fast source that share a look at the clock
constexpr auto kLook = std::chrono::milliseconds(1);  // a write that takes longer hangs
constexpr int kRestful = 100;                         // looks without a write, after which nobody looks
constexpr size_t kAllClaimed = std::numeric_limits<size_t>::max() / 2;

// Whether it is a plain write that only copies into the page cache, unless that is full.
bool Brief(const Request& request) {
  return request.sqe.opcode == kWrite && !request.partner && !request.written && (request.sqe.cdw12 & kFua) == 0 &&
         request.ns->store->Cached();
}

}  // namespace

void Worker::PostDone(storage::Job* job) { done_.Post(job, !job->more); }

// Whether what the executor has done is to be answered now: all of it is there, or the first has waited for a while.
// Answers that leave together cost one system call here and one wake-up of the host.
bool Worker::Ripe(uint64_t now) {
  if (done_.empty()) return false;
  if (seen_ == 0) seen_ = now;
  if (done_.out() > 0 && now - seen_ < kGather) return false;
  seen_ = 0;
  return true;
}

// Takes what the executor has done, in the order in which that was done.
void Worker::TakeDone() {
  storage::Job* first = done_.Take();
  while (first) Finish(static_cast<Request*>(std::exchange(first, first->link)));
  Settle();
}

// Has a source that answers later do it. False: the executor has to ask it, one question after the other.
bool Worker::Remote(Request* request) {
  storage::Store& store = *request->ns->store;
  const uint8_t opcode = request->sqe.opcode;
  const bool writes = opcode == kWrite || opcode == kWriteZeroes;
  if (!store.remote() || request->partner || (!writes && opcode != kRead && opcode != kFlush)) return false;
  // Not while a fused pair has the namespace.
  if (writes && !request->ns->TryWrite()) return false;
  request->owner = this;
  request->more = false;
  request->durable.request = request;
  Connection::BeginRemote(*request);
  done_.Gave(1);
  std::vector<storage::Job*> none;  // a source that answers later needs nobody's thread
  request->durable.Start(storage::Executor::Shared(), none);
  VIOCTL_ASSERT(none.empty());
  return true;
}

void Worker::Elsewhere(Request* request) {
  if (Remote(request)) return;
  request->lane = request->ns->store->lane().get();
  request->owner = this;
  request->more = false;
  request->run = [](storage::Job* job) {
    auto* done = static_cast<Request*>(job);
    if (Connection::Work(*done)) return done->durable.Sync(storage::Executor::Shared());
    done->connection->worker().PostDone(done);
  };
  request->durable.request = request;
  request->durable.store = request->ns->store.get();
  request->durable.done = [](storage::Io* io) {
    Request* done = static_cast<Request::Durable*>(io)->request;
    done->status = WriteStatus(io->result);
    done->more = false;
    done->connection->worker().PostDone(done);
  };
  request->brief = Brief(*request);
  gathered_.push_back(request);
}

// Whether the writes of a request are done here.
bool Worker::Borrows(const Request& request) const {
  const Namespace& ns = *request.ns;
  return standing_.load(std::memory_order_relaxed) && Brief(request) && ns.store->lane()->quick() &&
         (!ring_ || ns.regular);  // a buffered write of a regular file is never in the ring (SuitsRing)
}

// Brief jobs of sources that have been quick are done here, the others by the executor.
bool Worker::Dispatch() {
  while (!gathered_.empty()) {
    // What waits in the ring could only be taken by this thread.
    if (standing_.load(std::memory_order_acquire) && inRing_ == 0 && !ending_) {
      size_t others = 0;
      for (storage::Job* job : gathered_) {
        if (job->brief && job->lane->quick())
          batch_.push_back(job);
        else
          gathered_[others++] = job;
      }
      gathered_.resize(others);
    }
    HandOver();
    if (!batch_.empty() && !WriteHere()) return false;
  }
  return true;
}

// To the executor.
void Worker::HandOver() {
  if (gathered_.empty()) return;
  KeepLent(gathered_);
  done_.Gave(static_cast<uint32_t>(gathered_.size()));
  storage::Executor::Shared().Submit(gathered_);
  gathered_.clear();
}

void Worker::KeepLent(std::vector<storage::Job*>& jobs) {
  std::erase_if(jobs, [this](storage::Job* job) {
    auto* request = static_cast<Request*>(job);
    try {
      request->connection->Keep(*request);
      return false;
    } catch (const std::bad_alloc&) {
      request->status = kInternal;
      done_.Gave(1);
      PostDone(request);
      return true;
    }
  });
}

// Answers a write that was done here, or leaves that to the sync that it has begun.
void Worker::Written(Request* request) {
  if (request->syncs)
    done_.Gave(1);
  else
    Finish(request);
}

// Writes batch_ and answers, as far as time allows. The rest is for the next turn, or for the executor if it takes
// long.
bool Worker::WriteHere() {
  const size_t size = batch_.size();
  storage::Job* const* const batch = batch_.data();  // whoever takes the loop over empties batch_
  const bool alike = std::all_of(batch_.begin(), batch_.end(),
                                 [this](const storage::Job* job) { return job->lane == batch_[0]->lane; });
  const auto begin = [this] { begun_.store(begun_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); };
  claim_.store(0, std::memory_order_relaxed);
  begin();
  at_.store(kWriting, std::memory_order_release);
  if (!watched_.exchange(true)) {
    std::lock_guard lock(standMutex_);
    stand_.notify_one();
  }
  uint64_t now = os::NowNs();
  const uint64_t end = now + kStint;
  uint32_t untimed = 0;
  Request* last = nullptr;  // that nobody has been told of, were the loop lost
  while (now < end) {
    const size_t i = claim_.fetch_add(1, std::memory_order_acq_rel);
    if (i >= size) break;
    auto* request = static_cast<Request*>(batch[i]);
    begin();
    request->syncs = Connection::Work(*request);
    if (++untimed == kUntimed || !alike || !request->lane->instant()) {
      const uint64_t then = std::exchange(now, os::NowNs());
      request->lane->Took((now - then) / std::exchange(untimed, 0));
    }
    last = request->syncs ? nullptr : request;
    if (request->syncs) request->durable.Sync(storage::Executor::Shared());  // its last use here
  }
  int writing = kWriting;
  if (!at_.compare_exchange_strong(writing, kLooping, std::memory_order_acq_rel)) {
    if (last) PostDone(last);
    return false;
  }
  const size_t done = std::min(claim_.load(std::memory_order_relaxed), size);
  for (size_t i = 0; i < done; i++) Written(static_cast<Request*>(batch_[i]));
  for (size_t i = done; i < size; i++) (batch_[i]->lane->instant() ? rest_ : gathered_).push_back(batch_[i]);
  batch_.clear();
  KeepLent(rest_);
  HandOver();
  TakeDone();
  return true;
}

// Stands by. True: the loop's thread hangs, and this one has the loop. False: all is over.
bool Worker::Stand() {
  std::unique_lock lock(standMutex_);
  standing_.store(true, std::memory_order_release);
  uint64_t seen = 0;
  bool wrote = false;
  for (int restful = 0; !ended_;) {
    if (!watched_.load()) {
      stand_.wait(lock, [this] { return ended_ || watched_.load(); });
      restful = 0;
    }
    stand_.wait_for(lock, kLook, [this] { return ended_; });
    const uint64_t begun = begun_.load(std::memory_order_relaxed);
    const bool same = std::exchange(seen, begun) == begun, writes = at_.load(std::memory_order_acquire) == kWriting;
    int writing = kWriting;
    if (same && wrote && writes && at_.compare_exchange_strong(writing, kTaken, std::memory_order_acq_rel)) {
      standing_.store(false);
      return true;
    }
    wrote = writes;
    restful = same && !writes ? restful + 1 : 0;
    // The loop's thread may have begun to write meanwhile, and seen that it is watched.
    if (restful == kRestful && watched_.exchange(false) &&
        (at_.load() == kWriting || begun_.load(std::memory_order_relaxed) != begun)) {
      watched_.store(true);
      restful = 0;
    }
  }
  return false;
}

// Takes the loop over from a thread that hangs in a write: what it has not begun goes to the executor, as does all that
// follows for that source.
void Worker::TakeOver(size_t thread) {
  const size_t claimed = claim_.exchange(kAllClaimed, std::memory_order_acq_rel), size = batch_.size();
  const size_t begun = std::min(claimed, size);
  if (begun > 0) {
    for (size_t i = 0; i < begun - 1; i++) Written(static_cast<Request*>(batch_[i]));
    done_.Gave(1);  // the last one, of which the other thread tells
    if (claimed <= size) batch_[begun - 1]->lane->Hangs();
  }
  gathered_.insert(gathered_.end(), batch_.begin() + static_cast<ptrdiff_t>(begun), batch_.end());
  batch_.clear();
  HandOver();
  reader_ = thread;
  at_.store(kLooping, std::memory_order_release);
  Settle();
}

void Worker::Live(size_t thread) {
  ::pthread_setname_np(::pthread_self(), "nvme-queue");
  bool loops = thread == 0;
  if (loops && target_.options_.uring) OpenRing();
  while (loops ? !Run() : Stand()) {
    loops = !loops;
    if (loops) TakeOver(thread);
  }
}

void Worker::Submit(Request* request) {
  if (!ring_ || !Ring(request)) Elsewhere(request);
}

// The ring is of the thread that has the loop, one after the other (TakeOver). Without io_uring (sysctl, seccomp, an
// old kernel) the executor does it all.
void Worker::OpenRing() {
  try {
    // Its descriptor is not registered: that would bind it to a thread that may hang when the loop is taken over.
    ring_ = std::make_unique<uring::Ring>(
        uring::RingOptions{.entries = kRingEntries, .prefer = uring::kPassedOn, .registered_ring_fd = false});
    ringEvent_ = os::NewEventfd();
    // Requests that the kernel cannot do without waiting take one of these threads each. Kernels before 5.15 have no
    // say in it: eight at least.
    uint32_t workers[2] = {kRingThreads, 0};
    ring_->Register(IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2);
    if (const int err = ring_->RegisterEventfd(ringEvent_.get()); err < 0) throw SysError(-err, "io_uring_register");
    epoll_event event{EPOLLIN, {.u64 = kRingKey}};
    Check(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, ringEvent_.get(), &event), "epoll_ctl");
    if (storage::RingFiles::Suits(*ring_)) files_.emplace(*ring_, wake_.get());
  } catch (const SysError& error) {
    uring::NoteRefusal(error);
    CloseRing();
    target_.uringMissing_.store(true);
  }
}

void Worker::CloseRing() {
  files_.reset();
  ring_.reset();
  ringBuffers_.Forget();
}

// A request that waits keeps a thread of the ring: one source must not have them all. What the kernel can read without
// a thread (it says so by allowing RWF_NOWAIT) has only the room of the ring to share. `counted`: what counts it.
bool Worker::RoomInRing(const Request& request, std::atomic<uint32_t>** counted) const {
  Namespace& ns = *request.ns;
  *counted = nullptr;
  if (inRing_ >= ring_->cq_entries()) return false;
  if (request.sqe.opcode == kRead && ns.store->CanTry()) return true;
  if (ns.store->Async()) {
    *counted = &ns.direct;
    return ns.direct.load(std::memory_order_relaxed) < kDirectPerSource;
  }
  *counted = &ns.inRings;
  const uint32_t mine = ns.inRings.load(std::memory_order_relaxed);
  return threaded_ < kRingThreads && mine < (threaded_ < kRingThreads / 2 ? kRingThreadsPerSource : 1);
}

// Whether the ring can do a command: a read or a write of a file that does not keep others waiting. What makes data
// durable is not: the store orders that (storage/durability.h).
bool Worker::SuitsRing(const Request& request) const {
  const Sqe& command = request.sqe;
  const Namespace& ns = *request.ns;
  const storage::Store& store = *ns.store;
  const bool fused = (command.flags & 3) != 0;
  if (store.fd() < 0 || fused) return false;
  const iovec data{request.buffer, request.length};
  if (!store.Takes(&data, 1, command.slba() << ns.shift)) return false;
  if (command.opcode == kRead) return true;
  if (command.opcode != kWrite || ns.readonly || (command.cdw12 & kFua)) return false;
  // The kernel has one thread at a time for the writes of all regular files whose inodes hash alike, unless the file
  // system takes several: a file that hangs would keep others waiting, and no two writes of one file run at once.
  const bool several = store.Async() && store.parallel() && (ring_->features() & uring::abi::kFeatRecvsendBundle);
  return (!ns.regular || several) && !store.WantsZeroes(&data, 1);
}

// Puts a read or a write of a file into the ring. False: there is no room, or it is neither.
bool Worker::Ring(Request* request) {
  std::atomic<uint32_t>* counted;
  if (!SuitsRing(*request) || !RoomInRing(*request, &counted)) return false;
  const Sqe& command = request->sqe;
  Namespace& ns = *request->ns;
  const bool writes = command.opcode == kWrite;
  // Not while a fused pair has the namespace; the executor waits for its turn.
  if (writes && !ns.TryWrite()) return false;
  const int slot = files_ && !ns.removed.load(std::memory_order_relaxed) ? files_->SlotOf(ns.store) : -1;
  io_uring_sqe* sqe = ring_->Next();
  if (!sqe) {
    ring_->Submit();
    if (!(sqe = ring_->Next())) {
      if (writes) ns.WriteDone();
      return false;
    }
  }
  const uint64_t offset = command.slba() << ns.shift, tag = reinterpret_cast<uintptr_t>(request);
  const bool fixed = ringBuffers_.Fixed(request->buffer);
  const uint8_t opcode =
      fixed ? (writes ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED) : (writes ? IORING_OP_WRITE : IORING_OP_READ);
  uring::Prepare(sqe, opcode, slot < 0 ? ns.store->fd() : slot, request->buffer, request->length, offset, tag,
                 slot < 0 ? 0 : IOSQE_FIXED_FILE);
  inRing_++;
  request->counted = counted;
  if (counted == &ns.inRings) threaded_++;
  if (counted) counted->fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Worker::TurnRing() {
  if (inRing_ == 0) return;
  if (ring_->Pending() > 0 || ring_->NeedsEnter()) ring_->Submit();
  ring_->Reap([this](const io_uring_cqe& cqe) {
    auto* request = reinterpret_cast<Request*>(static_cast<uintptr_t>(cqe.user_data));
    const bool threaded = request->counted == &request->ns->inRings;
    VIOCTL_ASSERT(inRing_ > 0 && (!threaded || threaded_ > 0));
    inRing_--;
    if (threaded) threaded_--;
    if (request->counted) request->counted->fetch_sub(1, std::memory_order_relaxed);
    if (request->sqe.opcode == kWrite) request->ns->WriteDone();
    // Half done, or an error: the executor does it again, to the end, and finds the right status.
    const bool whole = cqe.res >= 0 && static_cast<uint32_t>(cqe.res) == request->length;
    request->written = whole && Connection::OwesFlush(*request);
    if (!whole || request->written)
      Elsewhere(request);
    else
      Finish(request);
  });
  Settle();
}

// Answers a request that was done elsewhere.
void Worker::Finish(Request* request) {
  Connection* connection = request->connection;
  try {
    if (connection->Unsettle()) unsettled_.push_back(connection);
    connection->Done(request);
  } catch (const std::bad_alloc&) {
    connection->Hangup(kNoMemory);
  }
}

// Sends what Finish() has answered: one system call for all answers of a connection.
void Worker::Settle() {
  // By index: what a connection resumes may come back here at once.
  for (size_t i = 0; i < unsettled_.size(); i++) {
    Connection* connection = unsettled_[i];
    try {
      connection->Settle();
    } catch (const std::bad_alloc&) {
      connection->Hangup(kNoMemory);
    }
  }
  unsettled_.clear();
}

}  // namespace vioctl::nvme
