// Receiving: PDUs out of the byte stream. Every field of a header is checked before anything is done with it, in the
// order of its offset, and the first wrong one is named to the peer (NVMe/TCP transport specification 1.0, 3.6.2.3
// and 3.4).
#include "nvme/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "common/crc32c.h"
#include "nvme/pdu.h"
#include "os/clock.h"

namespace vioctl::nvme {
namespace {

constexpr uint64_t kPendingLimit = 4 << 20;  // bytes queued to a host that does not read, before we stop reading too
constexpr uint32_t kMoreCommands = 16;  // commands above the queue size that may be open: those that wait for events
constexpr uint64_t kStuckMs = 60000;    // no byte accepted by the host for so long ends the connection
constexpr uint64_t kDrainMs = 2000;     // after a TermReq: time for the host to read it and close

uint32_t Load32(const uint8_t* at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

Connection::Connection(Worker& worker, uint32_t id, Fd fd, TlsUse tls)
    : worker_(worker), id_(id), fd_(std::move(fd)), cids_(new uint64_t[1024]()), use_(tls) {
  deadline_ = os::NowMs() + static_cast<uint64_t>(worker.target().options().handshakeMs);
  armed_ = EPOLLIN | EPOLLRDHUP;
}

Connection::~Connection() {
  for (auto& chunk : chunks_)
    for (size_t i = 0; i < kSlotChunk; i++) Drop(chunk[i]);
  if (!controller_ || qid_ == 0) return;
  // Not before: until its last command has ended, the queue is not gone.
  std::lock_guard lock(controller_->mutex);
  std::erase(controller_->queues, counters_);
  controller_->closed.Merge(*counters_);
}

// Enough to do. Commands that wait for the host's data do not count: only reading can end them.
bool Connection::Stalled() const {
  return pendingBytes_ + runningBytes_ > kPendingLimit || (inflight_ >= qsize_ + kMoreCommands && collecting_ == 0);
}

// Waits for what can happen next: room to send, bytes to read unless we have enough to do already.
void Connection::Arm() {
  if (state_ == kClosed) return;
  if (tls_ && tls_->pending() && !asking_ && !more_ && state_ != kDraining && !Stalled()) {
    more_ = true;  // epoll does not know of it
    worker_.Post(Worker::More{id_});
  }
  uint32_t want = EPOLLRDHUP;
  if (Unsent()) want |= EPOLLOUT;
  if (!asking_ && (!Stalled() || state_ == kDraining))
    want |= EPOLLIN;
  else
    want &= ~static_cast<uint32_t>(EPOLLRDHUP);
  if (want == armed_) return;
  armed_ = want;
  epoll_event event{want, {.u64 = id_}};
  ::epoll_ctl(worker_.epoll(), EPOLL_CTL_MOD, fd_.get(), &event);
}

bool Connection::Readable() {
  uint8_t* buffer = worker_.receiveBuffer();
  bool came = false;
  if (partial_.size() > Worker::kReceive / 4) Resume();
  for (int round = 0; round < 8; round++) {
    if (state_ == kClosed || (Stalled() && state_ != kDraining)) break;
    size_t have = partial_.size();
    if (have > 0) {
      memcpy(buffer, partial_.data(), have);
      partial_.clear();
    }
    // Data of a large write goes straight to its buffer; what comes behind it is parsed. Where more of it is on its
    // way, little is read behind it, or before it begins.
    iovec to[2];
    int count = 0;
    size_t direct = 0;
    if (data_ && have == 0 && dataLeft_ > 0) {
      to[count] = DataRoom();
      direct = to[count++].iov_len;
    }
    size_t behind = Worker::kReceive - have;
    if (collecting_ > 0) behind = std::min(behind, Worker::kReceiveBehind);
    if (direct > 0 && direct < dataLeft_) behind = 0;
    if (behind > 0) to[count++] = {buffer + have, behind};
    const ssize_t got = Receive(to, count);
    if (direct > 0) DataCame(got > 0 ? std::min(static_cast<size_t>(got), direct) : 0);
    if (got <= 0) {
      if (have > 0) Keep(buffer, have);
      if (got == 0) {
        if (state_ != kDraining) Flush();
        Close(state_ == kDraining ? "" : "closed by the host");
        return true;
      }
      if (errno == EAGAIN) break;
      Close(errno == EPROTO ? fault_ : "connection lost");
      return true;
    }
    came = true;
    came_ = os::NowNs();
    size_t size = static_cast<size_t>(got);
    const size_t space = direct + behind;
    const bool drained = size < space;
    if (direct > 0) {
      size -= std::min(size, direct);
      if (dataLeft_ == 0 && !ddgst_) {
        batching_ = true;
        DataDone();
        batching_ = false;
      }
    }
    if (state_ == kDraining) continue;  // thrown away
    size += have;
    batching_ = true;
    lending_ = worker_.lends();
    const size_t used = Parse(buffer, size);
    batching_ = lending_ = false;
    if (state_ == kClosed) return true;
    if (state_ != kDraining && used < size) Keep(buffer + used, size - used);
    Flush();
    if (paused_) Resume();
    // What is lent is written first; epoll says again that there is more.
    if (std::exchange(lent_, false) || drained) break;
  }
  Arm();
  return came;
}

void Connection::Keep(const uint8_t* data, size_t size) { partial_.assign(data, data + size); }

// Parses what was kept while there was too much to do: until there is again, or no whole PDU is left.
void Connection::Resume() {
  if (partial_.empty()) return;
  do {
    if (state_ == kClosed || state_ == kDraining || Stalled()) return;
    std::vector<uint8_t> bytes;
    bytes.swap(partial_);
    batching_ = true;
    const size_t used = Parse(bytes.data(), bytes.size());
    batching_ = false;
    if (state_ != kClosed && state_ != kDraining && used < bytes.size()) Keep(bytes.data() + used, bytes.size() - used);
    Flush();
  } while (paused_);
}

size_t Connection::Parse(const uint8_t* data, size_t size) {
  size_t used = 0;
  paused_ = false;
  if (controller_) controller_->activity.store(worker_.now(), std::memory_order_relaxed);
  Refresh();
  while (used < size && state_ != kClosed && state_ != kDraining) {
    if (!data_ && data[used] != kH2cData) {
      if (Stalled()) {
        paused_ = true;  // the rest is parsed when there is less to do: no byte need come for that
        break;
      }
      if (inflight_ >= qsize_ + kMoreCommands) {
        // The data that we asked for lies behind commands that the host had no right to send yet.
        Fail(kFesSequence, 0, data + used, std::min(size - used, sizeof(CommonHeader)));
        break;
      }
    }
    const size_t step = data_ ? DataBytes(data + used, size - used) : Pdu(data + used, size - used);
    if (step == 0) break;
    used += step;
  }
  return used;
}

// Checks the eight bytes that all PDUs begin with. Sets what the whole PDU, or for H2CData its header, measures.
bool Connection::Check(const uint8_t* data, size_t size, uint32_t* need) {
  CommonHeader ch;
  memcpy(&ch, data, sizeof ch);
  const size_t shown = std::min<size_t>(size, sizeof ch);
  if (ch.type == kH2cTermReq) {
    // Well formed or not: no answer, only the end (NVMe/TCP transport specification, 3.4).
    Close("terminated by the host");
    return false;
  }
  const bool first = state_ == kHandshake, known = ch.type == kIcReq || ch.type == kCapsuleCmd || ch.type == kH2cData;
  if (known && (ch.type == kIcReq) != first) return Fail(kFesSequence, 0, data, shown);
  const PduTerms terms{.to_controller = true,
                       .header_digest = hdgst_,
                       .data_digest = ddgst_,
                       .max_capsule_data = maxInCapsule_,
                       .max_data = kMaxH2cData};
  if (const PduFault fault = CheckHeader(ch, terms, need))
    return Fail(static_cast<Fes>(fault.fes), fault.fei, data, shown);
  return true;
}

// One PDU, or the header of an H2CData. Returns the bytes used, 0 if there are not enough or the connection is at its
// end.
size_t Connection::Pdu(const uint8_t* data, size_t size) {
  if (size < sizeof(CommonHeader)) return 0;
  uint32_t need = 0;
  if (!Check(data, size, &need) || size < need) return 0;
  const uint8_t hlen = data[2];
  if (hdgst_) {
    const uint32_t received = Load32(data + hlen);
    if (Crc32c(data, hlen) != received) {
      Fail(kFesHeaderDigest, received, data, hlen);
      return 0;
    }
  }
  switch (data[0]) {
    case kIcReq: {
      IcReq request;
      memcpy(&request, data, sizeof request);
      Negotiate(request);
      break;
    }
    case kCapsuleCmd:
      Capsule(data, need);
      break;
    default:
      if (!DataHeader(data)) return 0;
  }
  return need;
}

void Connection::Negotiate(const IcReq& request) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&request);
  if (request.pfv != 0) return void(Fail(kFesUnsupported, 8, bytes, sizeof request));
  if (request.hpda > 31) return void(Fail(kFesHeader, 10, bytes, sizeof request));
  if (request.dgst & ~3) return void(Fail(kFesHeader, 11, bytes, sizeof request));
  const TargetOptions& options = worker_.target().options();
  IcResp response{};
  response.ch = {kIcResp, 0, sizeof(IcResp), 0, sizeof(IcResp)};
  const bool header = (request.dgst & 1) && options.headerDigest, data = (request.dgst & 2) && options.dataDigest;
  response.dgst = static_cast<uint8_t>((header ? 1 : 0) | (data ? 2 : 0));
  response.maxh2cdata = kMaxH2cData;
  memcpy(lastPdu_, &response, sizeof response);
  last_.Reset();
  last_.Add(lastPdu_, sizeof response);
  Queue(last_, nullptr);
  hdgst_ = header;
  ddgst_ = data;
  alignment_ = (request.hpda + 1u) * 4;
  state_ = kOpen;
}

void Connection::Capsule(const uint8_t* pdu, uint32_t plen) {
  CapsuleCmd capsule;
  memcpy(&capsule, pdu, sizeof capsule);
  const uint32_t bare = sizeof(CapsuleCmd) + (hdgst_ ? 4 : 0);
  const uint8_t* data = nullptr;
  uint32_t length = 0;
  bool bad = false;
  if (plen > bare) {
    data = pdu + capsule.ch.pdo;
    length = plen - capsule.ch.pdo - (ddgst_ ? 4 : 0);
    if (ddgst_) bad = Crc32c(data, length) != Load32(data + length);
  }
  if (flowControl_) sqhd_ = sqhd_ + 1 >= qsize_ ? 0 : sqhd_ + 1;
  Request* request = NewRequest(capsule.sqe);
  Command(*request, data, length, bad);
}

bool Connection::DataHeader(const uint8_t* pdu) {
  Data header;
  memcpy(&header, pdu, sizeof header);
  const uint32_t tail = ddgst_ ? 4 : 0, slot = header.ttag & 0x7ff;
  Request* request = slot / kSlotChunk < chunks_.size() ? &chunks_[slot / kSlotChunk][slot % kSlotChunk] : nullptr;
  if (!request || request->state != Request::kCollecting || request->ttag() != header.ttag)
    return Fail(kFesHeader, 10, pdu, sizeof header);
  if (request->sqe.cid != header.cccid) return Fail(kFesHeader, 8, pdu, sizeof header);
  if (request->r2t.request) return Fail(kFesSequence, 0, pdu, sizeof header);  // our R2T has not even left yet
  if (header.datal == 0 || header.datal != header.ch.plen - header.ch.pdo - tail ||
      header.ch.plen - header.ch.pdo < tail)
    return Fail(kFesHeader, 16, pdu, sizeof header);
  if (header.datal > kMaxH2cData) return Fail(kFesLimit, 16, pdu, sizeof header);
  if (header.datao != request->received) return Fail(kFesSequence, 12, pdu, sizeof header);
  if (header.datal > request->length - request->received) return Fail(kFesRange, 16, pdu, sizeof header);
  const bool last = header.datal == request->length - request->received;
  if (last != ((header.ch.flags & kLastPdu) != 0)) return Fail(kFesSequence, 1, pdu, sizeof header);
  // Not before: hosts send the data of one command after that of the other, and one buffer that stays in the cache is
  // enough then.
  lands_ = !ddgst_ && !tls_ && Landing::Suits(*request, header.datal);
  if (!lands_) Own(*request, request->length);
  data_ = request;
  dataLeft_ = header.datal;
  dataLast_ = last;
  dataCrc_ = 0;
  digestHave_ = 0;
  return true;
}

// Where the next bytes of an H2CData PDU are to be received.
iovec Connection::DataRoom() {
  if (lands_) {
    const iovec room = landing_.Room(*data_, fd_.get(), dataLeft_);
    if (room.iov_len > 0) return room;
    Unland();
  }
  return {data_->buffer + data_->received, dataLeft_};
}

// Takes note of what has come there.
void Connection::DataCame(size_t size) {
  const bool lost = lands_ && !landing_.Landed(*data_, size);
  if (ddgst_) dataCrc_ = Crc32c(data_->buffer + data_->received, size, dataCrc_);
  data_->received += static_cast<uint32_t>(size);
  dataLeft_ -= static_cast<uint32_t>(size);
  if (lost) Unland();
}

// What is left of the data of a write goes to a buffer: its store cannot be written now, or not any more.
void Connection::Unland() {
  Own(*data_, data_->length);
  landing_.Leave(*data_, data_->buffer);
  lands_ = false;
}

// Bytes of an H2CData PDU behind its header.
size_t Connection::DataBytes(const uint8_t* data, size_t size) {
  size_t used = 0;
  if (dataLeft_ > 0) {
    used = std::min<size_t>(size, dataLeft_);
    if (lands_ && !landing_.Copy(*data_, data, used)) Unland();
    if (!lands_) memcpy(data_->buffer + data_->received, data, used);
    if (ddgst_) dataCrc_ = Crc32c(data, used, dataCrc_);
    data_->received += static_cast<uint32_t>(used);
    dataLeft_ -= static_cast<uint32_t>(used);
    if (dataLeft_ > 0) return used;
    if (!ddgst_) {
      DataDone();
      return used;
    }
  }
  while (digestHave_ < 4 && used < size) digestBytes_[digestHave_++] = data[used++];
  if (digestHave_ == 4) {
    if (Load32(digestBytes_) != dataCrc_) data_->badDigest = true;
    DataDone();
  }
  return used;
}

void Connection::DataDone() {
  Request* request = std::exchange(data_, nullptr);
  if (!dataLast_) return;
  collecting_--;
  Collected(*request, request->buffer);
}

// Sends a TermReq that names the bad field, then ends the connection. Always false.
bool Connection::Fail(Fes fes, uint32_t fei, const uint8_t* pdu, size_t size) {
  if (state_ == kClosed || state_ == kDraining) return false;
  size = std::min<size_t>(size, kTermReqMax - sizeof(TermReq));
  TermReq term{};
  term.ch = {kC2hTermReq, 0, sizeof(TermReq), 0, static_cast<uint32_t>(sizeof(TermReq) + size)};
  term.fes = fes;
  term.fei = fei;
  Event event{};
  event.kind = Event::kError;
  event.connection = id_;
  event.fes = fes;
  event.fei = fei;
  worker_.target().Push(std::move(event));
  state_ = kDraining;
  data_ = nullptr;  // what still comes for it is thrown away
  deadline_ = worker_.now() + kDrainMs;
  // Still waiting for its turn is only an ICResp, which makes this one wait for it too; a started PDU goes out whole.
  if (last_.bytes == 0) {
    memcpy(lastPdu_, &term, sizeof term);
    memcpy(lastPdu_ + sizeof term, pdu, size);
    last_.Reset();
    last_.Add(lastPdu_, sizeof term + size);
    last_.next = nullptr;
    Queue(last_, nullptr);
  }
  if (!batching_) Flush();
  return false;
}

void Connection::Tick() {
  const uint64_t now = worker_.now();
  errors_ = 0;
  Renew();
  if (state_ == kDraining && now >= deadline_) return Close("");
  // A host that waits for the answer to its CONNECT is not late: we are.
  if (!assigned_ && state_ != kDraining && connect_ != kHandedOut && now >= deadline_)
    return Close("no CONNECT in time");
  if (Unsent() && now - progress_ > kStuckMs) return Close("the host does not read");
}

void Connection::Renew() {
  Refresh();
  LetGo();
}

void Connection::Hangup(const char* reason) { Close(reason); }

void Connection::Finish(const char* reason) {
  if (state_ == kClosed || state_ == kDraining) return;
  if (!Unsent()) return Close(reason);
  state_ = kDraining;
  data_ = nullptr;
  deadline_ = worker_.now() + kDrainMs;
  Flush();
  Arm();
}

void Connection::Assign(const QueueSetup& setup) {
  if (state_ == kClosed) return;
  assigned_ = true;
  qid_ = setup.qid;
  qsize_ = setup.size;
  flowControl_ = setup.flowControl;
  sqhd_ = flowControl_ ? static_cast<uint16_t>(early_ % qsize_) : 0xffff;  // CONNECT was the first entry
  controller_ = setup.controller;
  locked_ = setup.locked;
  if (qid_ == 0) return;
  maxInCapsule_ = kIoInCapsule;
  std::lock_guard lock(controller_->mutex);
  counters_->qid = qid_;
  controller_->queues.push_back(counters_);
  table_ = controller_->table;
  tableGeneration_ = controller_->generation.load(std::memory_order_relaxed);
}

}  // namespace vioctl::nvme
