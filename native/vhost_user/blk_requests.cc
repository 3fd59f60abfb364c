// What the requests of a virtio-blk queue mean, and who does them.
#include <limits.h>
#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "os/eventfd.h"
#include "os/mapping.h"
#include "storage/direct.h"
#include "vhost_user/blk.h"

namespace vioctl::vhost_user {
namespace {

// virtio 1.3, 5.2.6
enum Type : uint32_t { kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13 };
enum Status : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
constexpr size_t kHeader = 16;                // bytes of a request before its data
constexpr size_t kKeptCapacity = 256;         // iovecs that the vectors of an idle request keep
constexpr uint64_t kInlineBytes = 256 << 10;  // copies of memory that the queue's thread makes itself
constexpr int kPatience = 100;                // looks for what is about to come, before a sleep
constexpr int kPauseMs = 100;
struct Segment {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;  // 1: unmap
};

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

// Of one thread, which others only read.
void Add(std::atomic<uint64_t>& counter, uint64_t more = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
}

int Count(const std::vector<iovec>& parts) { return static_cast<int>(parts.size()); }

}  // namespace

void BlkQueue::Start(uint32_t slot) {
  Request& request = requests_[slot];
  Chain& chain = request.chain;
  request.memory = queue_->memory();
  request.status = nullptr;
  request.write = request.owes_sync = false;
  request.bounce = -1;
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
  switch (header.type) {
    case kIn:
    case kOut:
      request.write = header.type == kOut;
      return StartData(slot, header.sector);
    case kFlush:
      Add(stats_.flushes);
      if (!options_.store->Syncs()) return Finish(slot, options_.store->sync_error());
      return Elsewhere(slot, storage::Op::kFlush);
    case kDiscard:
    case kWriteZeroes:
      Add(stats_.others);
      return StartRanges(slot, header.type == kWriteZeroes);
    case kGetId:
      Add(stats_.others);
      GetId(request);
      return Finish(slot, 0);
    default:
      Add(stats_.others);
      return Finish(slot, EOPNOTSUPP);
  }
}

void BlkQueue::StartData(uint32_t slot, uint64_t sector) {
  Request& request = requests_[slot];
  Chain& chain = request.chain;
  const storage::Store& store = *options_.store;
  std::swap(request.data, request.write ? chain.out : chain.in);
  request.size = request.write ? chain.out_size - kHeader : chain.in_size - 1;
  const uint64_t bytes = store.size();
  if (request.data.size() > IOV_MAX || request.size > kMaxRequestBytes || request.size % kSector ||
      sector > bytes / kSector || request.size > bytes - sector * kSector || (request.write && store.readonly()))
    return Finish(slot, EINVAL);
  request.offset = sector * kSector;
  request.owes_sync = request.write && write_through_;
  Add(request.write ? stats_.writes : stats_.reads);
  Add(request.write ? stats_.bytes_written : stats_.bytes_read, request.size);
  if (request.size == 0) return Finish(slot, 0);
  if (MayGo(slot, request.size)) Transfer(slot);
}

void BlkQueue::Transfer(uint32_t slot) {
  Request& request = requests_[slot];
  storage::Store& store = *options_.store;
  if (request.write) MapPages(request.data);
  // What cannot wait is done here.
  if (request.size <= kInlineBytes) {
    const iovec* data = request.data.data();
    if (!waits_)
      return Ended(slot, request.write ? store.Write(data, Count(request.data), request.offset, false)
                                       : store.Read(data, Count(request.data), request.offset, false));
    if (!request.write && store.ReadMapped(data, Count(request.data), request.offset)) return Ended(slot, 0);
    // A ring does reads for less.
    if (!request.write && tries_ && !ring_) {
      const int failure = store.Read(data, Count(request.data), request.offset, true);
      if (failure != EAGAIN) return Ended(slot, failure);
    }
  }
  Wherever(slot);
}

// Lets the ring do a read or a write, or the executor.
void BlkQueue::Wherever(uint32_t slot) {
  if (!InRing(slot)) Elsewhere(slot, requests_[slot].write ? storage::Op::kWrite : storage::Op::kRead);
}

// Gives the ring the file that the store has now. False if it could not be told.
bool BlkQueue::Refile() {
  const uint32_t opened = options_.store->opened();
  if (opened == opened_) return true;
  const int fd = options_.store->fd();
  if (ring_->UpdateFiles(0, std::span(&fd, 1)) != 1) return false;
  opened_ = opened;
  return true;
}

// The next entry of the ring; nullptr where there is none.
io_uring_sqe* BlkQueue::Entry() { return Refile() ? ring_->Next() : nullptr; }

// Puts a read or a write into the ring. False where that cannot be, or the store wants it done otherwise.
bool BlkQueue::InRing(uint32_t slot) {
  Request& request = requests_[slot];
  const storage::Store& store = *options_.store;
  const iovec* data = request.data.data();
  const int count = Count(request.data);
  if (!ring_ || (request.write && store.WantsZeroes(data, count))) return false;
  if (direct_ && !store.Takes(data, count, request.offset)) return Bounce(slot);
  io_uring_sqe* sqe = Entry();
  if (!sqe) return false;
  if (count == 1)
    uring::Prepare(sqe, request.write ? IORING_OP_WRITE : IORING_OP_READ, 0, data->iov_base,
                   static_cast<uint32_t>(data->iov_len), request.offset, slot, IOSQE_FIXED_FILE);
  else
    uring::Prepare(sqe, request.write ? IORING_OP_WRITEV : IORING_OP_READV, 0, data, static_cast<uint32_t>(count),
                   request.offset, slot, IOSQE_FIXED_FILE);
  return true;
}

// The same through an aligned buffer. Not for what is too large for one, or cannot be written as a whole.
bool BlkQueue::Bounce(uint32_t slot) {
  Request& request = requests_[slot];
  const uint64_t mask = options_.store->alignment().offset - 1, stop = request.offset + request.size;
  const uint64_t start = request.offset & ~mask, end = (stop + mask) & ~mask;
  if (end - start > storage::BouncePool::kBufferSize || (request.write && (start != request.offset || end != stop)))
    return false;
  if (!bounces_) bounces_ = std::make_unique<storage::BouncePool>(*ring_);
  const int index = bounces_->Take();
  if (index < 0) return false;
  io_uring_sqe* sqe = Entry();
  if (!sqe) {
    bounces_->Give(index);
    return false;
  }
  if (request.write) storage::Gather(bounces_->At(index), request.data.data(), Count(request.data));
  bounces_->Prepare(sqe, request.write, 0, index, static_cast<uint32_t>(end - start), start, slot);
  request.bounce = index;
  return true;
}

// Lets the executor do it. Ended() follows.
void BlkQueue::Elsewhere(uint32_t slot, storage::Op op) {
  Request& request = requests_[slot];
  Work& work = request.work;
  work.op = op;
  work.parts = request.data.data();
  work.count = Count(request.data);
  work.offset = request.offset;
  work.length = request.size;
  // Between the ranges of a request nothing is made durable.
  work.durable = op != storage::Op::kFlush && request.owes_sync && request.ranges.empty();
  if (work.durable || op == storage::Op::kFlush) request.owes_sync = false;
  completions_.Gave(1);
  work.Start(storage::Executor::Shared(), gathered_);
}

void BlkQueue::Dispatch() {
  if (gathered_.empty()) return;
  storage::Executor::Shared().Submit(gathered_);
  gathered_.clear();
}

void BlkQueue::TakeDone() {
  for (storage::Job* job = completions_.Take(); job;) {
    const auto* work = static_cast<Work*>(std::exchange(job, job->link));
    if (work->parked)
      Go(work->slot);
    else
      Ended(work->slot, work->result);
  }
}

// At the end of the thread: threads of the executor may still use the queue, or be about to leave it. If it ends in
// disorder, what they do is waited for and answered.
void BlkQueue::AwaitOthers() {
  Unpark();
  for (int tries = 0; completions_.out() > 0 || !completions_.empty(); tries++) {
    TakeDone();
    Dispatch();
    if (tries < kPatience) {
      ::sched_yield();
      continue;
    }
    pollfd woken{wake_.get(), POLLIN, 0};
    if (completions_.Sleep()) ::poll(&woken, 1, kPauseMs);
    completions_.Awake();
    if (woken.revents & POLLIN) os::ClearPeer(wake_.get());
  }
}

// The end of what was in the ring.
void BlkQueue::Completed(uint32_t slot, int result) {
  Request& request = requests_[slot];
  auto moved = static_cast<uint64_t>(std::max(result, 0));
  if (const int index = std::exchange(request.bounce, -1); index >= 0) {
    // A read began at the aligned offset before the request's, and may have gone on behind its end.
    const uint64_t before = request.offset & (options_.store->alignment().offset - 1);
    moved = std::min(moved - std::min(moved, before), request.size);
    if (!request.write && moved == request.size)
      storage::Scatter(bounces_->At(index) + before, request.data.data(), Count(request.data));
    bounces_->Give(index);
  }
  // Not begun, or ended half-way: it is done again, to the end, and the right error is found.
  if (result == -EAGAIN || result == -EINTR || (result >= 0 && moved != request.size))
    return Elsewhere(slot, request.write ? storage::Op::kWrite : storage::Op::kRead);
  const int failure = result < 0 ? -result : 0;
  options_.store->Failed(failure);
  Ended(slot, failure);
}

// The end of one step of a request, whoever did it.
void BlkQueue::Ended(uint32_t slot, int failure) {
  Request& request = requests_[slot];
  if (failure == 0 && !request.ranges.empty()) return NextRange(slot);
  if (failure == 0 && request.owes_sync) {
    if (options_.store->Syncs()) return Elsewhere(slot, storage::Op::kFlush);
    failure = options_.store->sync_error();
  }
  Finish(slot, failure);
}

void BlkQueue::GetId(Request& request) {
  char id[kIdSize] = {};
  memcpy(id, options_.serial.data(), std::min(options_.serial.size(), kIdSize));
  uint32_t done = 0;
  for (const iovec& part : request.chain.in) {
    const size_t take = std::min(part.iov_len, kIdSize - done);
    memcpy(part.iov_base, id + done, take);
    done += static_cast<uint32_t>(take);
  }
}

void BlkQueue::StartRanges(uint32_t slot, bool zero) {
  Request& request = requests_[slot];
  request.ranges.clear();
  const int failure = TakeRanges(request, zero);
  if (failure != 0) request.ranges.clear();
  if (failure != 0 || request.ranges.empty()) return Finish(slot, failure);
  std::reverse(request.ranges.begin(), request.ranges.end());
  request.work.op = zero ? storage::Op::kZero : storage::Op::kDiscard;
  request.owes_sync = write_through_;
  if (MayGo(slot, 0)) NextRange(slot);
}

// Reads the ranges of a request. The driver may change them at any time: all are checked before any is done.
int BlkQueue::TakeRanges(Request& request, bool zero) {
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
    request.ranges.push_back({segment.sector * kSector, length, (segment.flags & 1) != 0});
  }
  return 0;
}

void BlkQueue::NextRange(uint32_t slot) {
  Request& request = requests_[slot];
  const Range range = request.ranges.back();
  request.ranges.pop_back();
  request.offset = range.offset;
  request.size = range.length;
  request.work.deallocate = range.deallocate;
  Elsewhere(slot, request.work.op);
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
  if (failure) Add(stats_.errors);
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

}  // namespace vioctl::vhost_user
