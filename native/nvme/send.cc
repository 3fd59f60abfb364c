// Sending: response capsules, data and R2Ts, gathered into as few system calls as the socket allows.
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "common/assert.h"
#include "common/crc32c.h"
#include "nvme/connection.h"

namespace vioctl::nvme {
namespace {

constexpr int kVectors = 512;

}  // namespace

size_t Seal(uint8_t* pdu, size_t hlen, bool digest) {
  if (!digest) return hlen;
  const uint32_t crc = Crc32c(pdu, hlen);
  memcpy(pdu + hlen, &crc, sizeof crc);
  return hlen + sizeof crc;
}

Request* Connection::NewRequest(const Sqe& sqe) {
  if (!free_) {
    auto chunk = std::make_unique<Request[]>(kSlotChunk);
    const size_t base = chunks_.size() * kSlotChunk;
    VIOCTL_ASSERT(base + kSlotChunk <= kMaxSlots);
    for (size_t i = kSlotChunk; i-- > 0;) {
      chunk[i].slot = static_cast<uint16_t>(base + i);
      chunk[i].connection = this;
      chunk[i].next = free_;
      free_ = &chunk[i];
    }
    chunks_.push_back(std::move(chunk));
  }
  Request* request = free_;
  VIOCTL_ASSERT(request->state == Request::kFree);
  free_ = request->next;
  request->next = nullptr;
  request->generation = (request->generation + 1) & 0x1f;
  request->sqe = sqe;
  request->came = came_;
  request->state = Request::kRunning;
  request->badDigest = request->written = request->syncs = false;
  request->lent = nullptr;
  request->status = kOk;
  request->result = 0;
  request->length = request->received = request->readLength = request->placed = 0;
  request->partner = nullptr;
  request->ready = false;
  request->r2t.request = nullptr;
  inflight_++;
  counters_->outstanding.store(inflight_, std::memory_order_relaxed);
  return request;
}

void Connection::Release(Request* request) {
  VIOCTL_ASSERT(request->state == Request::kSending && inflight_ > 0);
  Drop(*request);
  request->state = Request::kFree;
  request->next = free_;
  free_ = request;
  inflight_--;
  counters_->outstanding.store(inflight_, std::memory_order_relaxed);
}

// Gives back all that a command holds.
void Connection::Drop(Request& request) {
  if (request.buffer) worker_.GiveBuffer(std::exchange(request.buffer, nullptr), request.capacity);
  GiveBack(request);
  request.ns.reset();
}

// Gives the command a buffer of its own.
void Connection::Own(Request& request, uint32_t size) {
  if (request.buffer) return;
  request.buffer = worker_.TakeBuffer(request, size);
  request.capacity = size;
}

// The same, with a copy of data in it.
void Connection::Own(Request& request, const uint8_t* data, uint32_t size) {
  Own(request, size);
  memcpy(request.buffer, data, size);
}

void Connection::Keep(Request& request) {
  if (const uint8_t* data = std::exchange(request.lent, nullptr)) Own(request, data, request.length);
}

uint8_t* Connection::Response(Request& request, Status status, uint64_t result) {
  CapsuleResp response{};
  response.ch = {kCapsuleResp, static_cast<uint8_t>(hdgst_ ? kHdgstFlag : 0), sizeof response, 0,
                 static_cast<uint32_t>(sizeof response + (hdgst_ ? 4 : 0))};
  response.cqe.result = result;
  response.cqe.sqhd = sqhd_;
  response.cqe.sqid = 0;  // reserved over fabrics
  response.cqe.cid = request.sqe.cid;
  response.cqe.status = StatusField(status);
  memcpy(request.respPdu, &response, sizeof response);
  request.out.Add(request.respPdu, Seal(request.respPdu, sizeof response, hdgst_));
  return request.respPdu;
}

// What an answer ends besides its command.
void Connection::Answered(const Request& request, Status status) {
  VIOCTL_ASSERT(request.state != Request::kFree && request.state != Request::kSending);  // one answer for each command
  worker_.Answered();
  cids_[request.sqe.cid / 64] &= ~(1ULL << (request.sqe.cid % 64));
  if (request.kind == Kind::kConnect) connect_ = kNone;
  if (request.kind == Kind::kFabrics && FctypeOf(request.sqe) == kDisconnect && status != kOk) leaving_ = false;
}

void Connection::Respond(Request& request, Status status, uint64_t result) {
  Answered(request, status);
  if (status != kOk) {
    Counters::Add(counters_->errors);
    if (request.ns) request.ns->usage.errors.fetch_add(1, std::memory_order_relaxed);
    if (request.kind == Kind::kIo && errors_ < 64) {
      errors_++;
      Event event{};
      event.kind = Event::kError;
      event.connection = id_;
      event.sqe = request.sqe;
      event.status = status;
      worker_.target().Push(std::move(event));
    }
  }
  request.state = Request::kSending;
  request.out.Reset();
  Response(request, status, result);
  Queue(request.out, &request);
}

// Data, then the response; the response is left out where the host may do without it. The data stays where it is until
// it has left: in the request's buffer, or in the memory of the namespace, which the request then holds.
void Connection::RespondData(Request& request, const uint8_t* data, uint32_t length, uint64_t result) {
  if (length == 0) return Respond(request, kOk, result);
  Answered(request, kOk);
  request.state = Request::kSending;
  request.out.Reset();
  const bool brief = request.kind == Kind::kIo && !flowControl_ && result == 0;
  Data header{};
  const size_t digest = hdgst_ ? 4 : 0;
  const size_t pdo = (sizeof header + digest + alignment_ - 1) / alignment_ * alignment_;
  header.ch = {
      kC2hData,
      static_cast<uint8_t>((hdgst_ ? kHdgstFlag : 0) | (ddgst_ ? kDdgstFlag : 0) | kLastPdu | (brief ? kSuccess : 0)),
      sizeof header, static_cast<uint8_t>(pdo), static_cast<uint32_t>(pdo + length + (ddgst_ ? 4 : 0))};
  header.cccid = request.sqe.cid;
  header.datal = length;
  memcpy(request.dataPdu, &header, sizeof header);
  const size_t sealed = Seal(request.dataPdu, sizeof header, hdgst_);
  memset(request.dataPdu + sealed, 0, pdo - sealed);
  request.out.Add(request.dataPdu, pdo);
  request.out.Add(data, length);
  if (ddgst_) {
    const uint32_t crc = Crc32c(data, length);
    memcpy(request.digest, &crc, sizeof crc);
    request.out.Add(request.digest, sizeof crc);
  }
  if (!brief) Response(request, kOk, result);
  Queue(request.out, &request);
}

void Connection::Queue(Outgoing& out, Request* request) {
  out.next = nullptr;
  out.request = request;
  if (tail_)
    tail_->next = &out;
  else
    head_ = &out;
  if (!tail_) progress_ = worker_.now();
  tail_ = &out;
  pendingBytes_ += out.bytes;
}

void Connection::Flush() {
  Tell();
  if (state_ == kClosed) return;
  if (tls_) Pump();
  while (head_) {
    iovec vector[kVectors];
    int count = 0;
    size_t skip = sent_, total = 0;
    for (Outgoing* out = head_; out && count + 5 <= kVectors; out = out->next) {
      for (int i = 0; i < out->count; i++) {
        if (skip >= out->parts[i].iov_len) {
          skip -= out->parts[i].iov_len;
          continue;
        }
        vector[count] = {static_cast<char*>(out->parts[i].iov_base) + skip, out->parts[i].iov_len - skip};
        total += vector[count++].iov_len;
        skip = 0;
      }
    }
    const ssize_t done = Transmit(vector, count);
    if (done < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return;
      // Its size was right when the data was looked at (storage/memory/view.h).
      if (errno == EFAULT) return Close("its source was truncated, or failed, while it was read");
      return Close("connection lost");
    }
    progress_ = worker_.now();
    pendingBytes_ -= static_cast<uint64_t>(done);
    size_t left = static_cast<size_t>(done) + sent_;
    while (head_ && left >= head_->bytes) {
      Outgoing* out = head_;
      left -= out->bytes;
      head_ = out->next;
      if (!head_) tail_ = nullptr;
      Request* request = out->request;
      out->Reset();
      if (request && out == &request->out) Release(request);
    }
    sent_ = static_cast<uint32_t>(left);
    if (static_cast<size_t>(done) < total) return;
  }
  if (state_ == kDraining && tls_) {
    if (!std::exchange(saidBye_, true)) {
      tls_->Shutdown();
      Pump();
    }
    if (Unsent()) return;
  }
  if (state_ == kDraining) {
    // Everything has left: the host reads it, then the end; what it still sends is thrown away (see Readable).
    ::shutdown(fd_.get(), SHUT_WR);
  }
}

void Connection::Writable() {
  Flush();
  if (state_ == kClosed) return;
  if (paused_) Resume();
  Arm();
}

void Connection::Close(const char* reason) {
  if (state_ == kClosed) return;
  Tell();
  state_ = kClosed;
  ::shutdown(fd_.get(), SHUT_RDWR);
  fd_.Reset();
  head_ = tail_ = nullptr;
  data_ = nullptr;
  // Work that hangs keeps the connection, but only what that work itself needs.
  for (auto& chunk : chunks_)
    for (size_t i = 0; i < kSlotChunk; i++) {
      Request& request = chunk[i];
      const bool elsewhere =
          request.state == Request::kParked || (request.state == Request::kRunning && !request.Half());
      if (!elsewhere) Drop(request);
    }
  Unpark();
  Event event{};
  event.kind = Event::kClosed;
  event.connection = id_;
  event.reason = reason;
  worker_.target().Push(std::move(event));
  worker_.Retire(this);
}

}  // namespace vioctl::nvme
