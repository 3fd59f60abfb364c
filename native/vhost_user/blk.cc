#include "vhost_user/blk.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "common/error.h"
#include "os/clock.h"
#include "os/eventfd.h"
#include "uring/refusal.h"

namespace vioctl::vhost_user {
namespace {

void Signal(int fd, bool nonblocking) {
  if (fd >= 0) os::SignalPeer(fd, nonblocking);
}

}  // namespace

BlkQueue::BlkQueue(BlkOptions options, std::shared_ptr<const GuestMemory> memory, const Virtqueue::Layout& layout,
                   int kick, Fd call)
    : options_(std::move(options)),
      waits_(options_.store->Waits()),
      tries_(options_.store->CanTry()),
      direct_(options_.store->alignment().offset > 1 || options_.store->alignment().memory > 1),
      queue_(Virtqueue::Make(std::move(memory), layout, options_.seg_max + 2)),  // header and status
      kick_(kick),
      call_(std::move(call)),
      call_non_blocking_(os::IsNonblocking(call_.get())),
      wake_(os::NewEventfd()),
      ended_(os::NewEventfd()),
      requests_(std::min(layout.num, kMaxQueueRequests)),
      max_bytes_(std::min(kMaxQueueBytes, kMaxDeviceBytes / std::max(options_.queues, 1u))),
      max_segments_(std::min(kMaxQueueSegments, kMaxDeviceSegments / std::max(options_.queues, 1u))),
      flushes_(layout.features & kFeatureFlush),
      sets_cache_(layout.features & kFeatureConfigWce),
      write_through_(!flushes_),
      spin_ns_(uint64_t{options_.spin_us} * 1000),
      completions_(wake_.get()) {
  for (uint32_t i = 0; i < requests_.size(); i++) {
    free_.push_back(i);
    Work& work = requests_[i].work;
    work.queue = this;
    work.slot = i;
    work.store = options_.store.get();
    work.done = [](storage::Io* io) { static_cast<Work*>(io)->queue->completions_.Post(io); };
  }
  uses_io_uring_ = options_.io_uring && options_.store->fd() >= 0;
  SetWriteback(options_.writeback);
  options_.store->AddOpenedEvent(wake_.get());
  try {
    thread_ = std::thread([this] { Run(); });
  } catch (...) {
    options_.store->RemoveOpenedEvent(wake_.get());
    throw;
  }
}

BlkQueue::~BlkQueue() {
  Stop();
  Join();
  options_.store->RemoveOpenedEvent(wake_.get());
}

void BlkQueue::SetWriteback(bool on) { write_through_ = !flushes_ || (sets_cache_ && !on); }

void BlkQueue::Stop() {
  {
    std::lock_guard guard(lock_);
    stop_ = true;
  }
  asked_ = true;
  Signal(wake_.get(), true);
}

uint32_t BlkQueue::Join() {
  if (thread_.joinable()) thread_.join();
  return queue_->base();
}

void BlkQueue::SetCall(Fd call) {
  std::lock_guard guard(call_lock_);
  call_ = std::move(call);
  call_non_blocking_ = os::IsNonblocking(call_.get());
}

void BlkQueue::Remap(std::shared_ptr<const GuestMemory> memory, const Virtqueue::Layout& layout) {
  Change change{std::move(memory), layout, {}, false};
  std::unique_lock guard(lock_);
  if (ended_flag_) return;
  change_ = &change;
  asked_ = true;
  Signal(wake_.get(), true);
  applied_.wait(guard, [&] { return change.done || ended_flag_; });
  change_ = nullptr;
  if (change.failure) throw *change.failure;
}

// Applies what other threads asked for.
void BlkQueue::Commands() {
  if (!asked_.exchange(false)) return;
  std::lock_guard guard(lock_);
  draining_ = draining_ || stop_;
  if (!change_ || change_->done) return;
  try {
    queue_->SetMemory(change_->memory, change_->layout);
  } catch (const SysError& error) {
    change_->failure = error;
  }
  change_->done = true;
  applied_.notify_all();
}

void BlkQueue::Run() {
  try {
    if (uses_io_uring_) {
      try {
        ring_.emplace(uring::RingOptions{.entries = static_cast<uint32_t>(requests_.size()) + 8});
        opened_ = options_.store->opened();
        const int fd = options_.store->fd();
        const int failure = ring_->RegisterFiles(std::span(&fd, 1));
        if (failure < 0) throw SysError(-failure, "io_uring_register");
      } catch (const SysError& error) {
        uring::NoteRefusal(error);
        ring_.reset();
        uses_io_uring_ = false;
      }
    }
    Loop();
  } catch (const std::exception& error) {
    error_ = error.what();
  }
  ring_.reset();
  AwaitOthers();
  std::lock_guard guard(lock_);
  ended_flag_ = true;
  applied_.notify_all();
  Signal(ended_.get(), true);
}

void BlkQueue::Loop() {
  for (;;) {
    Commands();
    if (ring_) Refile();
    bool more = false;
    if (!draining_) queue_->WantKicks(false);
    if (Takes()) more = TakeSome();
    Turn();
    Notify();
    if (draining_) {
      Unpark();
      if (in_flight_ > 0)
        Wait();
      else if (!Takes())
        return;
      continue;
    }
    if (more || Spin()) continue;
    queue_->WantKicks(true);
    if (TakeSome() || draining_) continue;  // what came before the driver saw that we want kicks
    Notify();
    Wait();
  }
}

// Hands over what was begun, and takes what has ended.
void BlkQueue::Turn() {
  if (ring_) {
    if (ring_->Pending() > 0 || ring_->NeedsEnter()) ring_->Submit();
    ring_->Reap([this](const io_uring_cqe& cqe) {
      if (cqe.user_data == kKick || cqe.user_data == kWake)
        Polled(cqe);
      else
        Completed(static_cast<uint32_t>(cqe.user_data), cqe.res);
    });
  }
  if (!completions_.empty()) TakeDone();
  Dispatch();
}

// Counts what a chain holds. False if that is too much beside the others.
bool BlkQueue::Admit(Request& request) {
  const Chain& chain = request.chain;
  const uint64_t bytes = chain.out_size + chain.in_size, segments = chain.out.size() + chain.in.size();
  if (in_flight_ > 0 && (held_bytes_ + bytes > max_bytes_ || held_segments_ + segments > max_segments_)) return false;
  held_bytes_ += request.held_bytes = bytes;
  held_segments_ += request.held_segments = segments;
  return true;
}

// Whether chains may be taken: at the end only those that an earlier back-end has left, which nobody else knows of.
bool BlkQueue::Takes() const { return error_.empty() && (!draining_ || queue_->resuming()); }

// Takes and starts chains that are there, until it is told something. Not more than a few: a driver that sleeps is
// woken for their answers and works while the next ones are done. One that was told of many at the end would have this
// thread sleep while it works, and the other way round. False if it started none.
bool BlkQueue::TakeSome() {
  constexpr int kSome = 4;
  bool any = false;
  for (int i = 0; i < kSome && Takes() && !free_.empty() && !asked_.load(std::memory_order_relaxed); i++) {
    const uint32_t slot = free_.back();
    const Pop pop = queue_->Next(requests_[slot].chain);
    if (pop == Pop::kEmpty) break;
    if (pop == Pop::kBroken) {
      error_ = queue_->error();
      draining_ = true;
      break;
    }
    if (!Admit(requests_[slot])) {
      queue_->Undo(requests_[slot].chain);
      break;
    }
    free_.pop_back();
    any = true;
    Start(slot);
  }
  return any && !draining_;
}

void BlkQueue::Notify() {
  if (!dirty_) return;
  dirty_ = false;
  if (!queue_->ShouldNotify()) return;
  std::lock_guard guard(call_lock_);
  Signal(call_.get(), call_non_blocking_);
}

// A multishot poll (5.13) posts an entry at each signal, so that neither read nor new poll is needed; its first one may
// be for a signal that has been seen. Counters are not read then: 2^64 kicks do not come.
void BlkQueue::Poll(int fd, uint64_t tag) {
  io_uring_sqe* sqe = ring_->Next();
  if (!sqe) return;
  uring::Prepare(sqe, IORING_OP_POLL_ADD, fd, nullptr, multishot_ ? IORING_POLL_ADD_MULTI : 0, 0, tag);
  sqe->poll32_events = POLLIN;
  (tag == kKick ? kick_polled_ : wake_polled_) = true;
}

void BlkQueue::Polled(const io_uring_cqe& cqe) {
  if (cqe.flags & IORING_CQE_F_MORE) return;
  (cqe.user_data == kKick ? kick_polled_ : wake_polled_) = false;
  if (cqe.res == -EINVAL && multishot_)
    multishot_ = false;
  else if (!multishot_ || cqe.res < 0)
    os::ClearPeer(cqe.user_data == kKick ? kick_ : wake_.get());
}

// Where the driver's next chain comes soon, going to sleep and being woken costs both sides more than looking for it.
// What sleeps were like says whether it does: a spin follows one that was shorter than a spin. One that finds nothing
// makes the next wait for twice as many of them: the driver may need this very processor. True: there is something to
// do.
bool BlkQueue::Spin() {
  if (spin_ns_ == 0 || spin_after_ > 0 || in_flight_ > 0) return false;
  const uint64_t end = os::NowNs() + spin_ns_;
  do {
    if (asked_.load(std::memory_order_relaxed) || !completions_.empty()) return true;
    if (TakeSome() || draining_) {
      spins_failed_ = 0;
      return true;
    }
  } while (os::NowNs() < end);
  spins_failed_ = std::min(spins_failed_ + 1, 10u);
  spin_after_ = 1u << spins_failed_;
  return false;
}

// Sleeps until there is a kick, a command, or a completion.
void BlkQueue::Wait() {
  if (asked_.load()) return;  // its signal may be among the completions that were just reaped
  const bool counts = spin_ns_ > 0 && spin_after_ > 0 && in_flight_ == 0;
  const uint64_t from = counts ? os::NowNs() : 0;
  if (completions_.Sleep()) Sleep();
  completions_.Awake();
  if (counts && os::NowNs() - from < spin_ns_) spin_after_--;
}

void BlkQueue::Sleep() {
  if (ring_) {
    if (!kick_polled_ && !draining_) Poll(kick_, kKick);
    if (!wake_polled_) Poll(wake_.get(), kWake);
    const int result = ring_->SubmitAndWait(1);
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
      throw SysError(-result, "io_uring_enter");
    return;
  }
  pollfd fds[2] = {{wake_.get(), POLLIN, 0}, {kick_, POLLIN, 0}};
  ::poll(fds, draining_ ? 1 : 2, -1);
  if (fds[0].revents & POLLIN) os::ClearPeer(wake_.get());
  if (fds[1].revents & POLLIN) os::ClearPeer(kick_);
}

}  // namespace vioctl::vhost_user
