// What a command capsule asks for: admin and fabrics commands are handed out, those of I/O queues are done here.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "nvme/connection.h"

namespace vioctl::nvme {
namespace {

constexpr uint64_t kCollectLimit = 4 << 20;  // bytes that R2Ts of one connection may have asked for at a time
constexpr uint32_t kAdminTransfer = 65536;   // data of an admin command towards us
constexpr uint32_t kFua = 1u << 30;
constexpr uint32_t kDeallocate = 1u << 25;

// Writers take the namespace together, a fused compare-and-write takes it alone. Nobody holds it for longer than one
// command takes, so who comes second looks again until it is free. Only for threads of the pool: a worker that waited
// here would not take the completions of its ring, which may be the writers that the pair waits for.
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
    default:
      return kWriteFault;
  }
}

Status ReadStatus(int err) { return err == 0 ? kOk : kReadError; }

}  // namespace

void Connection::Refresh() {
  if (!controller_ || qid_ == 0) return;
  const uint32_t generation = controller_->generation.load(std::memory_order_acquire);
  if (table_ && generation == tableGeneration_) return;
  std::lock_guard lock(controller_->mutex);
  table_ = controller_->table;
  tableGeneration_ = generation;
}

void Connection::Command(Request& request, const uint8_t* data, uint32_t length, bool badDigest) {
  const Sqe& sqe = request.sqe;
  uint64_t& word = cids_[sqe.cid / 64];
  const uint64_t bit = 1ULL << (sqe.cid % 64);
  if (word & bit) {
    // The first command of this identifier keeps its bit, which Respond would clear.
    Respond(request, kCidConflict);
    word |= bit;
    return;
  }
  word |= bit;
  if (qid_ != 0 && sqe.opcode != kFabrics)
    IoCommand(request, data, length, badDigest);
  else
    FabricsOrAdmin(request, data, length, badDigest);
}

void Connection::FabricsOrAdmin(Request& request, const uint8_t* data, uint32_t length, bool badDigest) {
  const Sqe& sqe = request.sqe;
  if ((sqe.flags & 3) != 0) return Respond(request, kInvalidField);  // nothing here is fused
  // A command of this direction need not have data: most of Set Features has none.
  if ((DirectionOf(sqe) & kToController) && (length != 0 || sqe.sgl.length != 0)) {
    if ((sqe.flags >> 6) != 1) return Respond(request, kInvalidField);
    if (sqe.sgl.id == kSglInCapsule) {
      if (sqe.sgl.address != 0) return Respond(request, kSglOffset);
      if (sqe.sgl.length != length) return Respond(request, kSglLength);
    } else if (sqe.sgl.id == kSglCommandBuffer) {
      if (sqe.sgl.address != 0) return Respond(request, kSglOffset);
      if (sqe.sgl.length > kAdminTransfer || length != 0) return Respond(request, kSglLength);
      if (sqe.sgl.length > 0) return Collect(request, sqe.sgl.length);
    } else {
      return Respond(request, kSglType);
    }
    if (badDigest) return Respond(request, kTransientTransport);
  } else {
    length = 0;  // data that nobody asked for is not looked at
  }
  HandOut(request, data, length);
}

void Connection::HandOut(Request& request, const uint8_t* data, uint32_t length) {
  request.state = Request::kWithHost;
  Event event{};
  event.kind = Event::kCommand;
  event.connection = id_;
  event.tag = request.ttag();
  event.sqe = request.sqe;
  if (length > 0) event.data.assign(data, data + length);
  worker_.target().Push(std::move(event));
}

void Connection::Reply(Worker::Reply& reply) {
  const uint32_t slot = reply.tag & 0x7ff;
  // Nothing follows a TermReq, or an end that has begun.
  if (state_ == kClosed || state_ == kDraining || slot / 32 >= chunks_.size()) return;
  Request& request = chunks_[slot / 32][slot % 32];
  if (request.state != Request::kWithHost || request.ttag() != reply.tag) return;
  const bool wasStalled = Stalled();
  // Never more than the host has room for, whatever was answered.
  const uint32_t room = DirectionOf(request.sqe) & kToHost ? request.sqe.sgl.length : 0;
  const auto length = static_cast<uint32_t>(std::min<size_t>({reply.data.size(), room, kMaxTransfer}));
  if (reply.status == kOk && length > 0) {
    Own(request, length);
    memcpy(request.buffer, reply.data.data(), length);
    RespondData(request, request.buffer, length, reply.result);
  } else {
    Respond(request, reply.status, reply.result);
  }
  Flush();
  if (wasStalled) Resume();
  Arm();
}

Status Connection::CheckRange(const Namespace& ns, uint64_t slba, uint64_t blocks) const {
  const uint64_t size = ns.blocks.load(std::memory_order_relaxed);
  return slba >= size || blocks > size - slba ? kLbaRange : kOk;
}

// For data towards us: in the capsule, or in a buffer of the host that we ask for.
Status Connection::CheckWriteSgl(const Sqe& sqe, uint32_t length, uint32_t inCapsuleLength) const {
  if ((sqe.flags >> 6) != 1) return kInvalidField;
  if (sqe.sgl.id != kSglInCapsule && sqe.sgl.id != kSglCommandBuffer) return kSglType;
  if (sqe.sgl.address != 0) return kSglOffset;
  if (sqe.sgl.length != length) return kSglLength;
  if (sqe.sgl.id == kSglInCapsule ? inCapsuleLength != length : inCapsuleLength != 0) return kSglLength;
  return kOk;
}

Status Connection::CheckReadSgl(const Sqe& sqe, uint32_t length) const {
  if ((sqe.flags >> 6) != 1) return kInvalidField;
  if (sqe.sgl.id == kSglInCapsule) return kInvalidField;
  if (sqe.sgl.id != kSglCommandBuffer) return kSglType;
  if (sqe.sgl.address != 0) return kSglOffset;
  return sqe.sgl.length == length ? kOk : kSglLength;
}

// Pairs the two halves of a fused operation. False: the command has been answered.
bool Connection::Fuse(Request& request) {
  const int fuse = request.sqe.flags & 3;
  const bool failed = std::exchange(fusedFailed_, false);
  if (Request* first = std::exchange(fusedFirst_, nullptr)) {
    if (fuse == 2 && request.sqe.opcode == kWrite && request.sqe.nsid == first->sqe.nsid &&
        request.sqe.slba() == first->sqe.slba() && (request.sqe.cdw12 & 0xffff) == (first->sqe.cdw12 & 0xffff)) {
      request.partner = first;
      first->partner = &request;
      return true;
    }
    first->status = kFusedMissing;
    if (first->ready) Respond(*first, kFusedMissing);  // else when its data has come
  }
  if (fuse == 0 || (fuse == 1 && request.sqe.opcode == kCompare)) return true;
  Respond(request, fuse != 2 || request.sqe.opcode != kWrite ? kInvalidField : failed ? kFusedFailed : kFusedMissing);
  return false;
}

// Does a fused pair once both halves are there, or fails both.
void Connection::TryFused(Request& request) {
  Request& first = (request.sqe.flags & 3) == 1 ? request : *request.partner;
  Request& second = *first.partner;
  if (!first.ready || !second.ready) return;
  if (first.status == kOk && second.status == kOk) return Run(second);
  Respond(first, first.status != kOk ? first.status : kFusedFailed);
  Respond(second, second.status != kOk ? second.status : kFusedFailed);
}

void Connection::IoCommand(Request& request, const uint8_t* data, uint32_t length, bool badDigest) {
  const Sqe& sqe = request.sqe;
  if (!controller_->ready.load(std::memory_order_relaxed)) return Respond(request, kSequenceError);
  if (((sqe.flags & 3) != 0 || fusedFirst_ || fusedFailed_) && !Fuse(request)) return;
  Status status = kOk;
  uint32_t bytes = 0;
  const NamespaceTable::Entry* entry = nullptr;
  const uint64_t blocks = (sqe.cdw12 & 0xffff) + 1ull;
  switch (sqe.opcode) {
    case kFlush:
    case kWrite:
    case kRead:
    case kCompare:
    case kWriteZeroes:
    case kDsm:
    case kVerify:
    case kCopy:
      if (sqe.nsid == 0 || sqe.nsid > table_->entries.size() || !table_->entries[sqe.nsid - 1].ns)
        status = kInvalidNamespace;
      else
        entry = &table_->entries[sqe.nsid - 1];
      break;
    default:
      status = kInvalidOpcode;
  }
  if (entry) {
    Namespace& ns = *entry->ns;
    status = entry->gate;
    const bool changes =
        sqe.opcode == kWrite || sqe.opcode == kWriteZeroes || sqe.opcode == kDsm || sqe.opcode == kCopy;
    if (status == kOk && changes && ns.readonly) status = kWriteProtected;
    if (status == kOk) switch (sqe.opcode) {
        case kRead:
        case kWrite:
        case kCompare:
          status = CheckRange(ns, sqe.slba(), blocks);
          if (status == kOk && blocks << ns.shift > kMaxTransfer) status = kInvalidField;
          if (status != kOk) break;
          bytes = static_cast<uint32_t>(blocks << ns.shift);
          status = sqe.opcode == kRead ? CheckReadSgl(sqe, bytes) : CheckWriteSgl(sqe, bytes, length);
          break;
        case kWriteZeroes:
          status = CheckRange(ns, sqe.slba(), blocks);
          break;
        case kVerify:
          status = CheckRange(ns, sqe.slba(), blocks);
          break;
        case kDsm:
          bytes = ((sqe.cdw10 & 0xff) + 1) * static_cast<uint32_t>(sizeof(DsmRange));
          // Linux sends room for all 256 ranges, however few there are.
          if (sqe.sgl.length > bytes && sqe.sgl.length <= 256 * sizeof(DsmRange)) bytes = sqe.sgl.length;
          status = CheckWriteSgl(sqe, bytes, length);
          break;
        case kCopy:
          // Descriptor format 0 only, within the namespace.
          if ((sqe.cdw12 >> 8 & 0xf) != 0) {
            status = kInvalidField;
          } else if ((sqe.cdw12 & 0xff) + 1 > kCopyRanges) {
            status = kCopyLimits;
          } else {
            bytes = ((sqe.cdw12 & 0xff) + 1) * static_cast<uint32_t>(sizeof(CopyRange));
            status = CheckWriteSgl(sqe, bytes, length);
          }
          break;
        default:
          break;
      }
    if (status == kOk) request.ns = entry->ns;
  }
  if (status == kOk && length > 0 && badDigest) status = kTransientTransport;
  if (status != kOk) {
    if (request.partner) {
      request.status = status;
      request.ready = true;
      return TryFused(request);
    }
    fusedFailed_ = (sqe.flags & 3) == 1;
    return Respond(request, status);
  }
  request.length = bytes;
  if ((sqe.flags & 3) == 1) fusedFirst_ = &request;
  if (sqe.opcode == kRead) return Read(request);
  if (bytes > 0 && length == 0) return Collect(request, bytes);
  Start(request, data);
}

// Asks the host for the command's data, or waits until there is room to.
void Connection::Collect(Request& request, uint32_t length) {
  request.length = length;
  if (!waiting_.empty() || (collectBytes_ > 0 && collectBytes_ + length > kCollectLimit)) {
    request.state = Request::kWaiting;
    waiting_.push_back(&request);
    return;
  }
  SendR2t(request);
}

void Connection::SendR2t(Request& request) {
  request.state = Request::kCollecting;
  collecting_++;
  collectBytes_ += request.length;
  Own(request, request.length);
  R2t pdu{};
  pdu.ch = {vioctl::nvme::kR2t, static_cast<uint8_t>(hdgst_ ? kHdgstFlag : 0), sizeof pdu, 0,
            static_cast<uint32_t>(sizeof pdu + (hdgst_ ? 4 : 0))};
  pdu.cccid = request.sqe.cid;
  pdu.ttag = request.ttag();
  pdu.r2tl = request.length;
  memcpy(request.r2tPdu, &pdu, sizeof pdu);
  request.r2t.Reset();
  request.r2t.Add(request.r2tPdu, Seal(request.r2tPdu, sizeof pdu, hdgst_));
  Queue(request.r2t, &request);
}

// All data of a command has come.
void Connection::Collected(Request& request, const uint8_t* data) {
  collectBytes_ -= request.length;
  request.state = Request::kRunning;
  while (!waiting_.empty() && (collectBytes_ == 0 || collectBytes_ + waiting_.front()->length <= kCollectLimit)) {
    Request* next = waiting_.front();
    waiting_.pop_front();
    SendR2t(*next);
  }
  if (request.badDigest) {
    if (request.status == kOk) request.status = kTransientTransport;
  }
  if (qid_ == 0 || request.sqe.opcode == kFabrics) {
    if (request.status != kOk) return Respond(request, request.status);
    return HandOut(request, data, request.length);
  }
  Start(request, data);
}

// Does a command whose data, if any, is here. Data in a capsule is only lent.
void Connection::Start(Request& request, const uint8_t* data) {
  const Sqe& sqe = request.sqe;
  const bool fused = (sqe.flags & 3) != 0;
  if (sqe.opcode == kWrite && !fused && request.status == kOk) return Write(request, data);
  if (data && !request.buffer) {
    Own(request, request.length);
    memcpy(request.buffer, data, request.length);
  }
  if (fused) {
    request.ready = true;
    if (request.partner) return TryFused(request);
    if (fusedFirst_ == &request && request.status == kOk) return;  // its write comes next
    if (fusedFirst_ == &request) {
      fusedFirst_ = nullptr;
      fusedFailed_ = true;
    }
  }
  if (request.status != kOk) return Respond(request, request.status);
  if (sqe.opcode == kFlush && !request.ns->store->Waits()) {
    request.status = WriteStatus(request.ns->store->Flush());
    return Finished(request);
  }
  Run(request);
}

void Connection::Run(Request& request) {
  running_++;
  runningBytes_ += request.length;
  worker_.Submit(&request);
}

void Connection::Read(Request& request) {
  storage::Store& store = *request.ns->store;
  const uint64_t offset = request.sqe.slba() << request.ns->shift;
  const uint32_t length = request.length;
  request.readLength = length;
  if (const std::byte* memory = store.memory(); memory && !ddgst_) {
    Count(request);
    return RespondData(request, reinterpret_cast<const uint8_t*>(memory) + offset, length);
  }
  Own(request, length);
  int err = 0;
  if (!store.Waits())
    err = store.Read(request.buffer, length, offset);
  else
    err = store.CanTry() ? store.Read(request.buffer, length, offset, true) : EAGAIN;
  if (err == EAGAIN && store.Waits()) return Run(request);
  request.status = ReadStatus(err);
  Finished(request);
}

void Connection::Write(Request& request, const uint8_t* data) {
  Namespace& ns = *request.ns;
  const bool durable = (request.sqe.cdw12 & kFua) != 0;
  if ((durable && ns.store->Waits()) || !ns.TryWrite()) {
    if (!request.buffer) {
      Own(request, request.length);
      memcpy(request.buffer, data, request.length);
    }
    return Run(request);
  }
  request.status = WriteStatus(ns.store->Write(data, request.length, request.sqe.slba() << ns.shift, durable));
  ns.WriteDone();
  Finished(request);
}

// Counts what a successful command has moved.
void Connection::Count(const Request& request) {
  switch (request.sqe.opcode) {
    case kRead:
      Counters::Add(counters_->reads);
      Counters::Add(counters_->readBytes, request.length);
      break;
    case kWrite:
      Counters::Add(counters_->writes);
      Counters::Add(counters_->writtenBytes, request.length);
      break;
    case kFlush:
      Counters::Add(counters_->flushes);
      break;
    case kCompare:
      Counters::Add(counters_->reads);
      Counters::Add(counters_->readBytes, request.length);
      break;
    default:
      Counters::Add(counters_->others);
  }
}

// Answers a command that has been done.
void Connection::Finished(Request& request) {
  if (request.status != kOk) return Respond(request, request.status, request.result);
  Count(request);
  if (request.sqe.opcode != kRead) {
    request.ns.reset();
    return Respond(request, kOk, request.result);
  }
  RespondData(request, request.buffer, request.length);
}

void Connection::Done(Request* request) {
  running_--;
  runningBytes_ -= request->length;
  if (state_ == kClosed || state_ == kDraining) return;
  if (Request* first = request->partner) Finished(*first);
  Finished(*request);
  Flush();
  if (!partial_.empty()) Resume();
  Arm();
}

namespace {

constexpr size_t kChunk = 256 << 10;

int CompareBlocks(Namespace& ns, const uint8_t* expected, uint64_t offset, uint64_t length, bool* equal) {
  std::vector<uint8_t> found(std::min<uint64_t>(length, kChunk));
  for (uint64_t at = 0; at < length; at += found.size()) {
    const size_t part = std::min<uint64_t>(length - at, found.size());
    if (const int err = ns.store->Read(found.data(), part, offset + at)) return err;
    if (memcmp(found.data(), expected + at, part) != 0) {
      *equal = false;
      return 0;
    }
  }
  *equal = true;
  return 0;
}

Status Compare(Namespace& ns, const Request& request) {
  bool equal = false;
  const int err = CompareBlocks(ns, request.buffer, request.sqe.slba() << ns.shift, request.length, &equal);
  return err != 0 ? ReadStatus(err) : equal ? kOk : kCompareFailed;
}

Status Deallocate(Namespace& ns, const Request& request) {
  const uint64_t size = ns.blocks.load(std::memory_order_relaxed);
  const uint32_t count = (request.sqe.cdw10 & 0xff) + 1;
  const bool wanted = (request.sqe.cdw11 & 4) != 0;
  WriteLock lock(ns, false);
  for (const bool act : {false, true}) {  // nothing is done when one of the ranges is wrong
    for (uint32_t i = 0; i < count; i++) {
      DsmRange range;
      memcpy(&range, request.buffer + i * sizeof range, sizeof range);
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
  const uint32_t count = (request.sqe.cdw12 & 0xff) + 1;
  uint64_t total = 0;
  for (uint32_t i = 0; i < count; i++) {
    CopyRange range;
    memcpy(&range, request.buffer + i * sizeof range, sizeof range);
    const uint64_t blocks = range.nlb + 1ull;
    if (range.slba >= size || blocks > size - range.slba) return kLbaRange;
    total += blocks;
  }
  const uint64_t to = request.sqe.slba();
  if (to >= size || total > size - to) return kLbaRange;
  if (total << ns.shift > kMaxTransfer) return kCopyLimits;
  // All is read before anything is written: ranges may overlap their destination.
  std::vector<uint8_t> data(total << ns.shift);
  size_t at = 0;
  for (uint32_t i = 0; i < count; i++) {
    CopyRange range;
    memcpy(&range, request.buffer + i * sizeof range, sizeof range);
    const size_t part = (range.nlb + 1ull) << ns.shift;
    if (const int err = ns.store->Read(data.data() + at, part, range.slba << ns.shift)) return ReadStatus(err);
    at += part;
  }
  WriteLock lock(ns, false);
  return WriteStatus(ns.store->Write(data.data(), data.size(), to << ns.shift, (request.sqe.cdw12 & kFua) != 0));
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
  {
    WriteLock lock(ns, false);
    if (const int err = ns.store->Zero(sqe.slba() << ns.shift, length, (sqe.cdw12 & kDeallocate) != 0))
      return WriteStatus(err);
  }
  return (sqe.cdw12 & kFua) != 0 ? WriteStatus(ns.store->Flush()) : kOk;
}

}  // namespace

void Connection::Work(Request& request) {
  Namespace& ns = *request.ns;
  const Sqe& sqe = request.sqe;
  const uint64_t offset = sqe.slba() << ns.shift;
  const bool durable = (sqe.cdw12 & kFua) != 0;
  try {
    switch (sqe.opcode) {
      case kRead:
        request.status = ReadStatus(ns.store->Read(request.buffer, request.length, offset));
        break;
      case kWrite: {
        WriteLock lock(ns, request.partner != nullptr);
        if (request.partner) {
          request.partner->status = Compare(ns, *request.partner);
          if (request.partner->status != kOk) {
            request.status = kFusedFailed;
            break;
          }
        }
        request.status = WriteStatus(ns.store->Write(request.buffer, request.length, offset, durable));
        break;
      }
      case kFlush:
        request.status = WriteStatus(ns.store->Flush());
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
  } catch (const std::bad_alloc&) {
    request.status = kInternal;
  }
}

}  // namespace vioctl::nvme
