// What a command of an I/O queue does to its namespace where that may wait: on a thread of the executor, or on one that
// loses its loop when it does wait (Worker::WriteHere).
#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "nvme/connection.h"

namespace vioctl::nvme {

Status WriteStatus(int err) {
  switch (err) {
    case 0:
      return kOk;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return kCapacity;
    case EROFS:
    case EBADF:
    case EPERM:
      return kWriteProtected;
    // Nobody could be asked: a host with another path tries that one.
    case ENOTCONN:
    case ETIMEDOUT:
    case ESHUTDOWN:
    case ENOLINK:
      return kInternalPath;
    default:
      return kWriteFault;
  }
}

Status ReadStatus(int err) {
  if (err == 0) return kOk;
  return WriteStatus(err) == kInternalPath ? kInternalPath : kReadError;
}

namespace {

constexpr size_t kChunk = 256 << 10;

// Writers take the namespace together, a fused compare-and-write takes it alone. Nobody holds it for longer than one
// command takes, so who comes second looks again until it is free. Not for a thread that has requests in its ring: a
// worker that waited here would not take the completions of its ring, which may be the writers that the pair waits for.
class WriteLock {
 public:
  WriteLock(Namespace& ns, bool alone) : ns_(ns), alone_(alone) {
    if (!alone) {
      for (int tries = 0; !ns_.TryWrite(); tries++) Pause(tries);
      return;
    }
    ns_.pairs.fetch_add(1, std::memory_order_relaxed);
    int none = 0;
    for (int tries = 0; !ns_.writers.compare_exchange_weak(none, -1, std::memory_order_acquire); tries++) {
      Pause(tries);
      none = 0;
    }
    ns_.pairs.fetch_sub(1, std::memory_order_relaxed);
  }
  ~WriteLock() {
    if (alone_)
      ns_.writers.store(0, std::memory_order_release);
    else
      ns_.WriteDone();
  }
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  static void Pause(int tries) {
    if (tries < 64)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

  Namespace& ns_;
  bool alone_;
};

Status Compare(Namespace& ns, const Request& request) {
  const iovec with{request.buffer, request.length};
  const int err = ns.store->Compare(&with, 1, request.sqe.slba() << ns.shift);
  return err == storage::Store::kDiffers ? kCompareFailed : ReadStatus(err);
}

// The ranges that are a command's data.
template <typename Range>
std::vector<Range> RangesOf(const Request& request, uint32_t count) {
  std::vector<Range> ranges(count);
  memcpy(ranges.data(), request.buffer, count * sizeof(Range));
  return ranges;
}

Status Deallocate(Namespace& ns, const Request& request) {
  const uint64_t size = ns.blocks.load(std::memory_order_relaxed);
  const auto ranges = RangesOf<DsmRange>(request, (request.sqe.cdw10 & 0xff) + 1);
  const bool wanted = (request.sqe.cdw11 & 4) != 0;
  WriteLock lock(ns, false);
  for (const bool act : {false, true}) {  // nothing is done when one of the ranges is wrong
    for (const DsmRange& range : ranges) {
      if (range.slba > size || range.nlb > size - range.slba) return kLbaRange;
      if (!act || !wanted || range.nlb == 0) continue;
      const int err = ns.store->Discard(range.slba << ns.shift, static_cast<uint64_t>(range.nlb) << ns.shift);
      if (err != 0) return WriteStatus(err);
    }
  }
  return kOk;
}

Status CopyBlocks(Namespace& ns, Request& request) {
  const uint64_t size = ns.blocks.load(std::memory_order_relaxed);
  const auto ranges = RangesOf<CopyRange>(request, (request.sqe.cdw12 & 0xff) + 1);
  uint64_t total = 0;
  for (const CopyRange& range : ranges) {
    const uint64_t blocks = range.nlb + 1ull;
    if (range.slba >= size || blocks > size - range.slba) return kLbaRange;
    total += blocks;
  }
  const uint64_t to = request.sqe.slba();
  if (to >= size || total > size - to) return kLbaRange;
  if (total << ns.shift > kMaxTransfer) return kCopyLimits;
  if (ns.store->throttle().active()) ns.store->throttle().Charge(0, 2 * (total << ns.shift));
  // All is read before anything is written: ranges may overlap their destination.
  std::vector<uint8_t> data(total << ns.shift);
  size_t at = 0;
  for (const CopyRange& range : ranges) {
    const size_t part = (range.nlb + 1ull) << ns.shift;
    if (const int err = ns.store->Read(data.data() + at, part, range.slba << ns.shift)) return ReadStatus(err);
    at += part;
  }
  WriteLock lock(ns, false);
  return WriteStatus(ns.store->Write(data.data(), data.size(), to << ns.shift));
}

Status Verify(Namespace& ns, uint64_t offset, uint64_t length) {
  std::vector<uint8_t> data(std::min<uint64_t>(length, kChunk));
  for (uint64_t at = 0; at < length; at += data.size()) {
    const size_t part = std::min<uint64_t>(length - at, data.size());
    if (const int err = ns.store->Read(data.data(), part, offset + at)) return ReadStatus(err);
  }
  return kOk;
}

Status Zeroes(Namespace& ns, const Sqe& sqe) {
  const uint64_t length = ((sqe.cdw12 & 0xffff) + 1ull) << ns.shift;
  WriteLock lock(ns, false);
  return WriteStatus(ns.store->Zero(sqe.slba() << ns.shift, length, (sqe.cdw12 & kDeallocate) != 0));
}

// FUA of a command that has it: the bit means something else in others.
bool FuaOf(const Sqe& sqe) {
  const bool changes = sqe.opcode == kWrite || sqe.opcode == kWriteZeroes || sqe.opcode == kCopy;
  return changes && (sqe.cdw12 & kFua) != 0;
}

}  // namespace

// Whether a successful command must be made durable before its answer, although it has not been: the host has switched
// the write cache off. It may have done so after the command came, so the cache is looked at after the write: what was
// written before it was off is part of the flush that the host's Set Features waits for.
bool Connection::OwesFlush(const Request& request) {
  const uint8_t opcode = request.sqe.opcode;
  return request.status == kOk && (opcode == kWrite || opcode == kWriteZeroes || opcode == kCopy) &&
         (request.sqe.cdw12 & kFua) == 0 && !request.connection->controller_->writeCache.load();
}

void Connection::BeginRemote(Request& request) {
  Namespace& ns = *request.ns;
  const Sqe& sqe = request.sqe;
  storage::Io& io = request.durable;
  request.data = {request.buffer, request.length};
  io.op = sqe.opcode == kRead    ? storage::Op::kRead
          : sqe.opcode == kWrite ? storage::Op::kWrite
          : sqe.opcode == kFlush ? storage::Op::kFlush
                                 : storage::Op::kZero;
  io.parts = &request.data;
  io.count = 1;
  io.offset = sqe.slba() << ns.shift;
  io.length = ((sqe.cdw12 & 0xffff) + 1ull) << ns.shift;
  io.durable = FuaOf(sqe);
  io.deallocate = io.op == storage::Op::kZero && (sqe.cdw12 & kDeallocate) != 0;
  io.store = ns.store.get();
  io.done = [](storage::Io* ended) {
    Request* done = static_cast<Request::Durable*>(ended)->request;
    const bool writes = ended->op == storage::Op::kWrite || ended->op == storage::Op::kZero;
    done->status = ended->op == storage::Op::kRead ? ReadStatus(ended->result) : WriteStatus(ended->result);
    if (writes) done->ns->WriteDone();
    ended->done = [](storage::Io* synced) {
      Request* after = static_cast<Request::Durable*>(synced)->request;
      after->status = WriteStatus(synced->result);
      after->connection->worker().PostDone(after);
    };
    if (writes && OwesFlush(*done)) return ended->Sync(storage::Executor::Shared());
    done->connection->worker().PostDone(done);
  };
}

bool Connection::Work(Request& request) {
  Namespace& ns = *request.ns;
  const Sqe& sqe = request.sqe;
  const uint64_t offset = sqe.slba() << ns.shift;
  const bool durable = sqe.opcode == kFlush || FuaOf(sqe);
  try {
    // What cannot become durable any more is not written.
    if (const int lost = durable && !request.written && !request.partner ? ns.store->sync_error() : 0) {
      request.status = WriteStatus(lost);
      return false;
    }
    switch (sqe.opcode) {
      case kRead:
        request.status = ReadStatus(ns.store->Read(request.buffer, request.length, offset));
        break;
      case kWrite: {
        if (request.written) break;  // by the ring; writing again could undo what others wrote since
        WriteLock lock(ns, request.partner != nullptr);
        if (request.partner) {
          request.partner->status = Compare(ns, *request.partner);
          if (request.partner->status != kOk) {
            request.status = kFusedFailed;
            break;
          }
        }
        const uint32_t done = request.placed;
        request.status = WriteStatus(ns.store->Write(request.data_in() + done, request.length - done, offset + done));
        break;
      }
      case kFlush:
        break;
      case kCompare:
        request.status = Compare(ns, request);
        break;
      case kDsm:
        request.status = Deallocate(ns, request);
        break;
      case kCopy:
        request.status = CopyBlocks(ns, request);
        break;
      case kVerify:
        request.status = Verify(ns, offset, ((sqe.cdw12 & 0xffff) + 1ull) << ns.shift);
        break;
      default:
        request.status = Zeroes(ns, sqe);
    }
    return request.status == kOk && (durable || OwesFlush(request));
  } catch (const std::bad_alloc&) {
    request.status = kInternal;
    return false;
  }
}

}  // namespace vioctl::nvme
