#include "vhost_user/blk.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "os/eventfd.h"
#include "os/mapping.h"

namespace vioctl::vhost_user {
namespace {

// virtio 1.3, 5.2.6
enum Type : uint32_t { kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13 };
enum Status : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
constexpr size_t kHeader = 16;         // bytes of a request before its data
constexpr size_t kKeptCapacity = 256;  // iovecs that the vectors of an idle request keep
struct Segment {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;  // 1: unmap
};

void Signal(int fd, bool nonblocking) {
  if (fd >= 0) os::SignalPeer(fd, nonblocking);
}

// Copies bytes out of the front of a vector and takes them off it. False if there are fewer.
bool TakeFront(std::vector<iovec>& parts, void* to, size_t size) {
  auto* at = static_cast<uint8_t*>(to);
  size_t used = 0;
  for (iovec& part : parts) {
    const size_t take = std::min(size, part.iov_len);
    memcpy(at, part.iov_base, take);
    at += take;
    size -= take;
    part.iov_base = static_cast<uint8_t*>(part.iov_base) + take;
    part.iov_len -= take;
    if (part.iov_len > 0) break;
    used++;
  }
  parts.erase(parts.begin(), parts.begin() + static_cast<ptrdiff_t>(used));
  return size == 0;
}

// Maps the pages of a buffer that is to be written. The kernel copies with page faults off and ends a write at the
// first page that is not mapped: the rest would reach the file system as a request of its own.
void MapPages(const std::vector<iovec>& parts) {
  const size_t page = os::PageSize();
  for (const iovec& part : parts) {
    const auto* at = static_cast<const volatile uint8_t*>(part.iov_base);
    for (size_t i = 0; i < part.iov_len; i += page) (void)at[i];
    if (part.iov_len > 0) (void)at[part.iov_len - 1];
  }
}

}  // namespace

BlkQueue::BlkQueue(BlkOptions options, std::shared_ptr<const GuestMemory> memory, const Virtqueue::Layout& layout,
                   int kick, Fd call)
    : options_(std::move(options)),
      queue_(Virtqueue::Make(std::move(memory), layout, options_.seg_max + 2)),  // header and status
      kick_(kick),
      call_(std::move(call)),
      call_non_blocking_(os::IsNonblocking(call_.get())),
      wake_(os::NewEventfd()),
      ended_(os::NewEventfd()),
      requests_(std::min(layout.num, kMaxQueueRequests)),
      max_bytes_(std::min(kMaxQueueBytes, kMaxDeviceBytes / std::max(options_.queues, 1u))),
      max_segments_(std::min(kMaxQueueSegments, kMaxDeviceSegments / std::max(options_.queues, 1u))) {
  for (uint32_t i = 0; i < requests_.size(); i++) {
    free_.push_back(i);
    requests_[i].sync.queue = this;
    requests_[i].sync.slot = i;
  }
  uses_io_uring_ = options_.io_uring && options_.store->fd() >= 0;
  write_through_ = !(layout.features & kFeatureFlush);
  thread_ = std::thread([this] { Run(); });
}

BlkQueue::~BlkQueue() {
  Stop();
  Join();
}

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
  TakeTold(false);
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
        const int fd = options_.store->fd();
        const int failure = ring_->RegisterFiles(std::span(&fd, 1));
        if (failure < 0) throw SysError(-failure, "io_uring_register");
      } catch (const SysError&) {
        ring_.reset();  // not allowed here: the store does the I/O
        uses_io_uring_ = false;
      }
    }
    Loop();
  } catch (const std::exception& error) {
    error_ = error.what();
  }
  ring_.reset();
  AbandonSyncs();
  std::lock_guard guard(lock_);
  ended_flag_ = true;
  applied_.notify_all();
  Signal(ended_.get(), true);
}

void BlkQueue::Loop() {
  for (;;) {
    Commands();
    bool more = false;
    if (!draining_) queue_->WantKicks(false);
    if (Takes()) more = TakeAll();
    if (ring_ && (ring_->Pending() > 0 || ring_->NeedsEnter())) ring_->Submit();
    if (ring_)
      ring_->Reap([this](const io_uring_cqe& cqe) {
        if (cqe.user_data == kKick || cqe.user_data == kWake) {
          Polled(cqe);
        } else {
          Completed(static_cast<uint32_t>(cqe.user_data), cqe.res);
        }
      });
    Notify();
    if (draining_) {
      if (in_flight_ > 0)
        Wait();
      else if (!Takes())
        return;
      continue;
    }
    if (more) continue;
    queue_->WantKicks(true);
    if (TakeAll() || draining_) continue;  // what came before the driver saw that we want kicks
    Notify();
    Wait();
  }
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

// Takes and starts the chains that are there, until it is told something. False if it started none.
bool BlkQueue::TakeAll() {
  bool any = false;
  while (Takes() && !free_.empty() && !asked_.load(std::memory_order_relaxed)) {
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

void BlkQueue::Start(uint32_t slot) {
  Request& request = requests_[slot];
  Chain& chain = request.chain;
  request.memory = queue_->memory();
  request.status = nullptr;
  in_flight_++;
  struct {
    uint32_t type, reserved;
    uint64_t sector;
  } header;
  static_assert(sizeof header == kHeader);
  const bool whole = TakeFront(chain.out, &header, sizeof header);
  // The status is the last byte of the writable part.
  if (chain.in_size == 0) return Finish(slot, EINVAL);
  iovec& last = chain.in.back();
  request.status = static_cast<uint8_t*>(last.iov_base) + last.iov_len - 1;
  if (--last.iov_len == 0) chain.in.pop_back();
  if (!whole) return Finish(slot, EINVAL);
  request.flush = header.type == kFlush;
  request.write = header.type == kOut;
  if (header.type == kIn || header.type == kOut) {
    std::swap(request.data, request.write ? chain.out : chain.in);
    request.size = request.write ? chain.out_size - sizeof header : chain.in_size - 1;
    const uint64_t store = options_.store->size();
    if (request.data.size() > IOV_MAX || request.size > kMaxRequestBytes || request.size % kSector ||
        header.sector > store / kSector || request.size > store - header.sector * kSector ||
        (request.write && options_.store->readonly()))
      return Finish(slot, EINVAL);
    request.offset = header.sector * kSector;
    (request.write ? stats_.writes : stats_.reads).fetch_add(1, std::memory_order_relaxed);
    (request.write ? stats_.bytes_written : stats_.bytes_read).fetch_add(request.size, std::memory_order_relaxed);
    if (request.size == 0) return Finish(slot, 0);
    if (request.write) MapPages(request.data);
  } else if (request.flush) {
    stats_.flushes.fetch_add(1, std::memory_order_relaxed);
  } else {
    stats_.others.fetch_add(1, std::memory_order_relaxed);
    const int failure = RunNow(request, header.type);
    if (failure == 0 && header.type != kGetId) return Changed(slot);
    return Finish(slot, failure);
  }
  if (request.flush) return Flush(slot);
  const auto parts = static_cast<int>(request.data.size());
  const bool zeroes = request.write && options_.store->WantsZeroes(request.data.data(), parts);
  if (ring_ && !zeroes && options_.store->Takes(request.data.data(), parts, request.offset)) {
    io_uring_sqe* sqe = ring_->Next();
    if (sqe) {
      if (request.data.size() == 1) {
        uring::Prepare(sqe, request.write ? IORING_OP_WRITE : IORING_OP_READ, 0, request.data[0].iov_base,
                       static_cast<uint32_t>(request.data[0].iov_len), request.offset, slot, IOSQE_FIXED_FILE);
      } else {
        uring::Prepare(sqe, request.write ? IORING_OP_WRITEV : IORING_OP_READV, 0, request.data.data(),
                       static_cast<uint32_t>(request.data.size()), request.offset, slot, IOSQE_FIXED_FILE);
      }
      return;
    }
  }
  Completed(slot, -EAGAIN);
}

// A flush shares the syncs of its store with all other queues, connections and servers (storage/durability.h).
void BlkQueue::Flush(uint32_t slot) {
  if (!ring_ || options_.store->readonly()) return Finish(slot, options_.store->Flush());
  const int joined = options_.store->durability().Join(requests_[slot].sync);
  if (joined == storage::Durability::kLeads) return LeadSync(slot);
  if (joined == storage::Durability::kWaiting)
    waiting_++;
  else
    Finish(slot, joined);
}

void BlkQueue::LeadSync(uint32_t slot) {
  leading_.push_back(slot);
  io_uring_sqe* sqe = ring_ ? ring_->Next() : nullptr;
  if (!sqe) return EndSync(slot, -EAGAIN);
  uring::Prepare(sqe, IORING_OP_FSYNC, 0, nullptr, 0, 0, slot, IOSQE_FIXED_FILE);
  sqe->fsync_flags = IORING_FSYNC_DATASYNC;
}

// The sync that this queue leads has ended. One that has not begun or was interrupted is done here; none that failed
// is.
void BlkQueue::EndSync(uint32_t slot, int result) {
  if (result == -EAGAIN || result == -EINTR)
    result = -options_.store->SyncNow();
  else
    options_.store->Failed(-result);
  std::erase(leading_, slot);
  Finish(slot, options_.store->durability().Finish(-result));
}

void BlkQueue::Tell(Told told) {
  // Under the lock to the end: the queue may be gone as soon as it has seen the entry.
  std::lock_guard guard(lock_);
  told_.push_back(told);
  asked_ = true;
  Signal(wake_.get(), true);
  applied_.notify_all();
}

void BlkQueue::TakeTold(bool ending) {
  std::vector<Told> told;
  {
    std::unique_lock guard(lock_);
    if (ending) applied_.wait(guard, [this] { return !told_.empty(); });
    told.swap(told_);
  }
  for (const Told& one : told) {
    waiting_--;
    if (one.leads)
      LeadSync(one.slot);
    else
      Finish(one.slot, one.err);
  }
}

// The thread ends in disorder. What a sync under way has found out is lost with the ring: that counts as a failure.
// Those who wait for a sync of others are told before they may go.
void BlkQueue::AbandonSyncs() {
  for (const uint32_t slot : std::exchange(leading_, {})) EndSync(slot, -EIO);
  while (waiting_ > 0) TakeTold(true);
}

// The end of an I/O, or EAGAIN where it has to be done by the store: no ring, a short transfer.
void BlkQueue::Completed(uint32_t slot, int result) {
  Request& request = requests_[slot];
  int failure = result < 0 ? -result : 0;
  if (request.flush) return EndSync(slot, result);
  if (failure == EAGAIN || (failure == 0 && static_cast<uint64_t>(result) != request.size)) {
    const int count = static_cast<int>(request.data.size());
    failure = request.write ? options_.store->Write(request.data.data(), count, request.offset, false)
                            : options_.store->Read(request.data.data(), count, request.offset, false);
  } else {
    options_.store->Failed(failure);
  }
  if (failure == 0 && request.write) return Changed(slot);
  Finish(slot, failure);
}

// The end of a request that has changed the disk.
void BlkQueue::Changed(uint32_t slot) {
  if (!write_through_) return Finish(slot, 0);
  requests_[slot].flush = true;
  Flush(slot);
}

// Requests that are rare enough to wait for.
int BlkQueue::RunNow(Request& request, uint32_t type) {
  switch (type) {
    case kGetId: {
      char id[kIdSize] = {};
      memcpy(id, options_.serial.data(), std::min(options_.serial.size(), kIdSize));
      uint32_t done = 0;
      for (const iovec& part : request.chain.in) {
        const size_t take = std::min(part.iov_len, kIdSize - done);
        memcpy(part.iov_base, id + done, take);
        done += static_cast<uint32_t>(take);
      }
      return 0;
    }
    case kDiscard:
    case kWriteZeroes:
      return Segments(request, type == kWriteZeroes);
    default:
      return EOPNOTSUPP;
  }
}

int BlkQueue::Segments(Request& request, bool zero) {
  if (options_.store->readonly()) return EROFS;
  Segment segment;
  const uint64_t size = options_.store->size();
  if (request.chain.out_size > kHeader + options_.max_ranges * sizeof segment) return EINVAL;
  while (!request.chain.out.empty()) {
    if (!TakeFront(request.chain.out, &segment, sizeof segment)) return EINVAL;
    const uint64_t length = segment.sectors * kSector;
    if (segment.flags & ~1u) return EOPNOTSUPP;
    if (!zero && segment.flags) return EOPNOTSUPP;
    if (segment.sectors > options_.max_sectors) return EINVAL;
    if (segment.sector > size / kSector || length > size - segment.sector * kSector) return EINVAL;
    const uint64_t offset = segment.sector * kSector;
    const int failure =
        zero ? options_.store->Zero(offset, length, segment.flags & 1) : options_.store->Discard(offset, length);
    if (failure) return failure;
  }
  return 0;
}

// Notes in the dirty log what a request may have written, failed or not.
void BlkQueue::LogWrites(const Request& request) {
  const bool read = !request.write && !request.data.empty();
  for (const iovec& part : read ? request.data : request.chain.in)
    queue_->LogWrite(*request.memory, part.iov_base, part.iov_len);
  if (request.status) queue_->LogWrite(*request.memory, request.status, 1);
}

void BlkQueue::Finish(uint32_t slot, int failure) {
  Request& request = requests_[slot];
  if (failure) stats_.errors.fetch_add(1, std::memory_order_relaxed);
  if (request.status) *request.status = failure == 0 ? kOk : failure == EOPNOTSUPP ? kUnsupported : kIoError;
  if (queue_->logs()) LogWrites(request);
  // The status is the last writable byte, so all before it counts as written, after an error too.
  queue_->Put(request.chain, request.status ? static_cast<uint32_t>(request.chain.in_size) : 0);
  request.memory.reset();
  request.data.clear();
  for (std::vector<iovec>* parts : {&request.data, &request.chain.out, &request.chain.in}) {
    if (parts->capacity() > kKeptCapacity) std::vector<iovec>().swap(*parts);
  }
  held_bytes_ -= request.held_bytes;
  held_segments_ -= request.held_segments;
  free_.push_back(slot);
  in_flight_--;
  dirty_ = true;
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

// Sleeps until there is a kick, a command, or a completion.
void BlkQueue::Wait() {
  if (asked_.load()) return;  // its signal may be among the completions that were just reaped
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
