// What a command capsule asks for: admin and fabrics commands are handed out, those of I/O queues are checked, given
// their data, and done here if that cannot wait for anything, else handed to the worker (Worker::Submit).
#include <algorithm>
#include <cstring>

#include "common/assert.h"
#include "nvme/connection.h"
#include "os/clock.h"

namespace vioctl::nvme {
namespace {

constexpr uint64_t kCollectLimit = 4 << 20;  // bytes that R2Ts of one connection may have asked for at a time
constexpr uint32_t kAdminTransfer = 65536;   // data of an admin command towards us

}  // namespace

void Connection::Refresh() {
  if (!controller_ || qid_ == 0) return;
  const uint32_t generation = controller_->generation.load(std::memory_order_acquire);
  if (table_ && generation == tableGeneration_) return;
  std::lock_guard lock(controller_->mutex);
  table_ = controller_->table;
  tableGeneration_ = generation;
}

// What a command is. Nothing but one CONNECT has a meaning before the queue is connected, and nothing behind a
// Disconnect (NVMe over Fabrics: no command is sent before the completion of Connect).
Kind Connection::Classify(const Sqe& sqe) const {
  const bool fabrics = sqe.opcode == kFabrics;
  if (!assigned_) return fabrics && FctypeOf(sqe) == kConnect && connect_ == kNone ? Kind::kConnect : Kind::kEarly;
  if (leaving_) return Kind::kEarly;
  const bool authentication = fabrics && (FctypeOf(sqe) == kAuthSend || FctypeOf(sqe) == kAuthReceive);
  if (locked_ && !authentication) return Kind::kLocked;
  if (qid_ == 0) return Kind::kAdmin;
  return fabrics ? Kind::kFabrics : Kind::kIo;
}

void Connection::Command(Request& request, const uint8_t* data, uint32_t length, bool badDigest) {
  const Sqe& sqe = request.sqe;
  request.kind = Classify(sqe);
  if (!assigned_) early_ = request.kind == Kind::kConnect ? 1 : early_ + 1;
  uint64_t& word = cids_[sqe.cid / 64];
  const uint64_t bit = 1ULL << (sqe.cid % 64);
  // SPDK shuts a controller down with identifiers that its pending Asynchronous Event Requests still have.
  if ((word & bit) && !(request.kind == Kind::kAdmin && IsProperty(sqe))) {
    // The first command of this identifier keeps its bit, which Respond would clear.
    Respond(request, kCidConflict);
    word |= bit;
    return;
  }
  word |= bit;
  if (request.kind == Kind::kEarly) return Respond(request, kSequenceError);
  if (request.kind == Kind::kLocked) return Respond(request, kAuthenticationRequired);
  if (request.kind == Kind::kIo) return IoCommand(request, data, length, badDigest);
  if (request.kind == Kind::kConnect) connect_ = kTaken;
  if (request.kind == Kind::kFabrics && FctypeOf(sqe) == kDisconnect) leaving_ = true;
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
  if (request.kind == Kind::kConnect) connect_ = kHandedOut;
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
  const uint32_t slot = reply.tag & (kMaxSlots - 1);
  // Nothing follows a TermReq, or an end that has begun.
  if (state_ == kClosed || state_ == kDraining || slot / kSlotChunk >= chunks_.size()) return;
  Request& request = chunks_[slot / kSlotChunk][slot % kSlotChunk];
  if (request.state != Request::kWithHost || request.ttag() != reply.tag) return;
  // Never more than the host has room for, whatever was answered.
  const uint32_t room = DirectionOf(request.sqe) & kToHost ? request.sqe.sgl.length : 0;
  const auto length = static_cast<uint32_t>(std::min<size_t>({reply.data.size(), room, kMaxTransfer}));
  if (reply.status == kOk && length > 0) {
    Own(request, reply.data.data(), length);
    RespondData(request, request.buffer, length, reply.result);
  } else {
    Respond(request, reply.status, reply.result);
  }
  Flush();
  if (paused_) Resume();
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

// Finds the namespace of a command and checks all that can be checked before its data is here. `bytes`: of data, either
// way.
Status Connection::Admit(Request& request, uint32_t inCapsuleLength, uint32_t* bytes) {
  const Sqe& sqe = request.sqe;
  switch (sqe.opcode) {
    case kFlush:
    case kWrite:
    case kRead:
    case kCompare:
    case kWriteZeroes:
    case kDsm:
    case kVerify:
    case kCopy:
      break;
    default:
      return kInvalidOpcode;
  }
  if (sqe.nsid == 0 || sqe.nsid > table_->entries.size() || !table_->entries[sqe.nsid - 1].ns) return kInvalidNamespace;
  const NamespaceTable::Entry& entry = table_->entries[sqe.nsid - 1];
  if (entry.gate != kOk) return entry.gate;
  const Namespace& ns = *entry.ns;
  const bool changes = sqe.opcode == kWrite || sqe.opcode == kWriteZeroes || sqe.opcode == kDsm || sqe.opcode == kCopy;
  if (changes && ns.readonly) return kWriteProtected;
  const uint64_t blocks = (sqe.cdw12 & 0xffff) + 1ull;
  Status status = kOk;
  switch (sqe.opcode) {
    case kRead:
    case kWrite:
    case kCompare:
      if (status = CheckRange(ns, sqe.slba(), blocks); status != kOk) return status;
      if (blocks << ns.shift > kMaxTransfer) return kInvalidField;
      *bytes = static_cast<uint32_t>(blocks << ns.shift);
      status = sqe.opcode == kRead ? CheckReadSgl(sqe, *bytes) : CheckWriteSgl(sqe, *bytes, inCapsuleLength);
      break;
    case kWriteZeroes:
    case kVerify:
      status = CheckRange(ns, sqe.slba(), blocks);
      if (status == kOk && sqe.opcode == kWriteZeroes && blocks << ns.shift > kMaxZeroes) status = kInvalidField;
      break;
    case kDsm:
      *bytes = ((sqe.cdw10 & 0xff) + 1) * static_cast<uint32_t>(sizeof(DsmRange));
      // Linux sends room for all 256 ranges, however few there are.
      if (sqe.sgl.length > *bytes && sqe.sgl.length <= 256 * sizeof(DsmRange)) *bytes = sqe.sgl.length;
      status = CheckWriteSgl(sqe, *bytes, inCapsuleLength);
      break;
    case kCopy:
      // Descriptor format 0 only, within the namespace.
      if ((sqe.cdw12 >> 8 & 0xf) != 0) return kInvalidField;
      if ((sqe.cdw12 & 0xff) + 1 > kCopyRanges) return kCopyLimits;
      *bytes = ((sqe.cdw12 & 0xff) + 1) * static_cast<uint32_t>(sizeof(CopyRange));
      status = CheckWriteSgl(sqe, *bytes, inCapsuleLength);
      break;
  }
  if (status == kOk) request.ns = entry.ns;
  return status;
}

void Connection::IoCommand(Request& request, const uint8_t* data, uint32_t length, bool badDigest) {
  const Sqe& sqe = request.sqe;
  if (!controller_->ready.load(std::memory_order_relaxed)) return Respond(request, kSequenceError);
  if (((sqe.flags & 3) != 0 || fusedFirst_ || fusedFailed_) && !Fuse(request)) return;
  uint32_t bytes = 0;
  Status status = Admit(request, length, &bytes);
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
  if ((sqe.opcode == kWrite || sqe.opcode == kWriteZeroes || sqe.opcode == kCopy) &&
      !controller_->writeCache.load(std::memory_order_relaxed))
    request.sqe.cdw12 |= kFua;
  if ((sqe.flags & 3) == 1) fusedFirst_ = &request;
  if (request.ns->store->throttle().active() && Park(request, data, length)) return;
  if (Hold(request, data, length)) return;
  Proceed(request, data, length);
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
  VIOCTL_ASSERT(request.state == Request::kRunning || request.state == Request::kWaiting);
  request.state = Request::kCollecting;
  collecting_++;
  collectBytes_ += request.length;
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
  VIOCTL_ASSERT(request.state == Request::kCollecting && collectBytes_ >= request.length);
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
  if (request.kind != Kind::kIo) {
    if (request.status != kOk) return Respond(request, request.status);
    return HandOut(request, data, request.length);
  }
  // The namespace may have become smaller since: what is written now must not make its file as long as it was.
  if (request.status == kOk && (request.sqe.opcode == kWrite || request.sqe.opcode == kCompare))
    request.status = CheckRange(*request.ns, request.sqe.slba(), request.length >> request.ns->shift);
  Start(request, data);
}

// Does a command whose data, if any, is here. Data in a capsule is only lent.
void Connection::Start(Request& request, const uint8_t* data) {
  const Sqe& sqe = request.sqe;
  const bool fused = (sqe.flags & 3) != 0;
  if (sqe.opcode == kWrite && !fused && request.status == kOk) return Write(request, data);
  if (data && !request.buffer) Own(request, data, request.length);
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
  controller_->running.fetch_add(1, std::memory_order_relaxed);
  runningBytes_ += request.length;
  worker_.Submit(&request);
}

void Connection::Read(Request& request) {
  storage::Store& store = *request.ns->store;
  const uint64_t offset = request.sqe.slba() << request.ns->shift;
  const uint32_t length = request.length;
  request.readLength = length;
  // Not where we would look at it: the data may still change behind its digest, and its pages may go (Store::View). TLS
  // reads it once.
  const bool look = ddgst_ || (tls_ && !store.Stays());
  if (const std::byte* view = look ? nullptr : store.View(offset, length)) {
    Count(request);
    return RespondData(request, reinterpret_cast<const uint8_t*>(view), length);
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
  if (request.placed == request.length) return Finished(request);
  Namespace& ns = *request.ns;
  const bool durable = (request.sqe.cdw12 & kFua) != 0;
  // Even a write into the page cache waits when too much of it is dirty, for a journal, or for a file system over a
  // network; and no common file system tells beforehand (RWF_NOWAIT: EOPNOTSUPP for buffered writes on ext4).
  if (ns.store->Waits() || !ns.TryWrite()) {
    if (!request.buffer && lending_ && worker_.Borrows(request)) {
      request.lent = data;
      lent_ = true;
    } else if (!request.buffer) {
      Own(request, data, request.length);
    }
    return Run(request);
  }
  const uint32_t done = request.placed;
  request.status = WriteStatus(
      ns.store->Write(data + done, request.length - done, (request.sqe.slba() << ns.shift) + done, durable));
  ns.WriteDone();
  Finished(request);
}

// Counts what a successful command has moved.
void Connection::Count(const Request& request) {
  VIOCTL_ASSERT(request.ns);
  if (tally_.ns != request.ns || tally_.came != request.came) {
    Tell();
    tally_.ns = request.ns;
    tally_.came = request.came;
  }
  switch (request.sqe.opcode) {
    case kRead:
    case kCompare:
      tally_.reads++;
      tally_.readBytes += request.length;
      break;
    case kWrite:
      tally_.writes++;
      tally_.writtenBytes += request.length;
      break;
    case kFlush:
      tally_.flushes++;
      break;
    default:
      tally_.others++;
  }
}

// Tells the counters what was counted, before its answers leave. Once for many commands: a look at the clock and three
// atomic operations are a tenth of a command that memory answers.
void Connection::Tell() {
  if (!tally_.ns) return;
  const Tally tally = std::exchange(tally_, {});
  const uint64_t now = os::NowNs(), took = now > tally.came ? now - tally.came : 0;
  Usage& usage = tally.ns->usage;
  if (tally.reads > 0) {
    usage.read.Add(took, tally.reads);
    usage.readBytes.fetch_add(tally.readBytes, std::memory_order_relaxed);
    Counters::Add(counters_->reads, tally.reads);
    Counters::Add(counters_->readBytes, tally.readBytes);
  }
  if (tally.writes > 0) {
    usage.write.Add(took, tally.writes);
    usage.writtenBytes.fetch_add(tally.writtenBytes, std::memory_order_relaxed);
    Counters::Add(counters_->writes, tally.writes);
    Counters::Add(counters_->writtenBytes, tally.writtenBytes);
  }
  if (tally.flushes > 0) {
    usage.flushes.fetch_add(tally.flushes, std::memory_order_relaxed);
    Counters::Add(counters_->flushes, tally.flushes);
  }
  if (tally.others > 0) Counters::Add(counters_->others, tally.others);
  if (const uint32_t others = tally.flushes + tally.others) usage.other.Add(took, others);
}

// Answers a command that has been done.
void Connection::Finished(Request& request) {
  if (request.status != kOk) return Respond(request, request.status, request.result);
  Count(request);
  request.ns.reset();  // what was read lies in the request's own buffer
  if (request.sqe.opcode != kRead) return Respond(request, kOk, request.result);
  RespondData(request, request.buffer, request.length);
}

// Lets an answer that is being sent go on without its namespace: data that would leave from there is copied first.
// False: it cannot be had any more.
bool Connection::Detach(Request& request) {
  const bool sends = request.out.count > 1 && request.out.parts[0].iov_base == request.dataPdu;
  if (sends && !request.buffer) {
    try {
      Own(request, request.readLength);
    } catch (const std::bad_alloc&) {
      return false;
    }
    storage::Store& store = *request.ns->store;  // it has views: to read it waits for nothing
    const uint64_t offset = request.sqe.slba() << request.ns->shift;
    if (store.Read(request.buffer, request.readLength, offset, store.Fleeting()) != 0) return false;
    request.out.parts[1].iov_base = request.buffer;
  }
  request.ns.reset();
  return true;
}

// A host that owes data for a namespace that is gone, or does not fetch what it has read, must not keep its file open:
// its command fails when the data comes, its answer goes on without the file.
void Connection::LetGo() {
  if (collecting_ == 0 && waiting_.empty() && !fusedFirst_ && parked_ == 0 && !head_) return;
  for (auto& chunk : chunks_)
    for (size_t i = 0; i < kSlotChunk; i++) {
      Request& request = chunk[i];
      if (!request.ns) continue;
      // What a slow host has not fetched for a while may have to be read again by then.
      const bool late = request.state == Request::kSending && request.ns->store->Fleeting();
      if (!late && !request.ns->removed.load(std::memory_order_relaxed)) continue;
      if (request.state == Request::kParked) {
        if (LeaveTurn(request)) worker_.Post(Worker::Go{&request});
        continue;
      }
      if (request.state == Request::kSending) {
        if (!Detach(request)) return Close("its source has gone while it was read");
        continue;
      }
      const bool owed = request.state == Request::kWaiting || request.state == Request::kCollecting;
      if (!owed && !request.Half()) continue;
      request.ns.reset();
      if (request.status == kOk) request.status = kInvalidNamespace;
    }
}

void Connection::Done(Request* request) {
  VIOCTL_ASSERT(request->state == Request::kRunning && running_ > 0 && runningBytes_ >= request->length);
  running_--;
  controller_->running.fetch_sub(1, std::memory_order_release);
  runningBytes_ -= request->length;
  if (state_ == kClosed || state_ == kDraining) {
    // Others of this connection may hang for long, and must not keep this one's source open.
    if (request->partner) Drop(*request->partner);
    Drop(*request);
    return;
  }
  if (Request* first = request->partner) Finished(*first);
  Finished(*request);
}

void Connection::Settle() {
  unsettled_ = false;
  if (state_ == kClosed || state_ == kDraining) return Tell();
  Flush();
  if (paused_) Resume();
  Arm();
}

}  // namespace vioctl::nvme
