#include "nvme/host/queue.h"

#include <limits.h>
#include <poll.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/assert.h"
#include "common/crc32c.h"
#include "common/error.h"
#include "nvme/pdu.h"
#include "os/clock.h"
#include "storage/remote/parts.h"

namespace vioctl::nvme::host {
namespace {

// Of Authentication Receive the length is an allocation length (AL; NVMe Base 2.0, 6.2): a message may be shorter.
bool MayBeShort(const Command& command) {
  return command.sqe.opcode == kFabrics && FctypeOf(command.sqe) == kAuthReceive;
}

constexpr size_t kInBuffer = 256 << 10;
// Of larger data, a read goes straight to its place, with this much behind it.
constexpr size_t kDirect = 16 << 10, kBehindLarge = 8 << 10;
constexpr uint32_t kLeastH2c = 4096;  // what MAXH2CDATA is at least (NVMe/TCP 3.6.2.3)
constexpr uint32_t kMaxCpda = 31;
constexpr uint8_t kPsdtSgl = 0x40;
constexpr uint16_t kNoCid = 0xFFFF;  // stands for no command in error log entries

// Fields of the common header by their offsets, as CheckHeader names them.
constexpr const char* kFieldNames[] = {"wrong PDU type", "wrong FLAGS", "wrong HLEN", "wrong PDO", "wrong PLEN"};
const char* FieldName(uint32_t at) { return at < std::size(kFieldNames) ? kFieldNames[at] : "wrong header"; }

// Offsets of fields of PDUs, for a TermReq.
constexpr uint32_t kCccidAt = 8, kDataoAt = 12, kDatalAt = 16, kCidAt = 20;
constexpr uint32_t kPfvAt = 8, kCpdaAt = 10, kDgstAt = 11, kMaxH2cAt = 12;

}  // namespace

Queue::Queue(std::unique_ptr<Stream> stream, const QueueOptions& options)
    : stream_(std::move(stream)),
      options_(options),
      in_(new uint8_t[kInBuffer]),  // not zeroed: pages come when they are used
      ahead_(kInBuffer) {
  VIOCTL_ASSERT(options.entries >= 2 && options.entries <= 65536);
  slots_.resize(depth());
  turns_.resize(depth());
  slot_bits_ = std::bit_width(depth() - 1);
  for (size_t i = slots_.size(); i-- > 0;) free_.push_back(static_cast<uint16_t>(i));
}

// --- commands

void Queue::Submit(Command* command, uint64_t now) {
  VIOCTL_ASSERT(!free_.empty());
  const uint16_t slot = free_.back();
  free_.pop_back();
  do command->cid = static_cast<uint16_t>(slot | (static_cast<uint32_t>(turns_[slot]++) << slot_bits_));
  while (command->cid == kNoCid && slot_bits_ < 16);
  slots_[slot] = command;
  command->started = now;
  command->deadline = command->timeout == 0 ? 0 : now + command->timeout;
  command->moved = command->unsent = 0;
  command->answered = 0;
  longest_ = std::max(longest_, command->length);
  command->bad_digest = command->aborted = false;
  command->in_capsule = command->direction == kToController && command->length <= options_.in_capsule;
  if (command->in_capsule) command->moved = command->length;
  CapsuleCmd capsule{};
  capsule.ch = {.type = kCapsuleCmd, .flags = 0, .hlen = sizeof capsule, .pdo = 0, .plen = 0};
  capsule.sqe = command->sqe;
  capsule.sqe.flags = static_cast<uint8_t>((command->sqe.flags & 3) | kPsdtSgl);
  capsule.sqe.cid = command->cid;
  capsule.sqe.sgl = {};
  capsule.sqe.sgl.length = command->length;
  capsule.sqe.sgl.id = command->in_capsule ? kSglInCapsule : kSglCommandBuffer;
  out_.Put(&capsule, sizeof capsule, command, 0, command->in_capsule ? command->length : 0);
}

// --- receiving

// Tells the target what it did wrong, as far as the socket takes it, and ends.
void Queue::Broken(const char* what, Fes fes, uint32_t fei, const void* header, size_t size) {
  TermReq term{};
  size = std::min<size_t>(size, kTermReqMax - sizeof term);
  term.ch = {.type = kH2cTermReq, .flags = 0, .hlen = sizeof term, .pdo = 0, .plen = 0};
  term.ch.plen = static_cast<uint32_t>(sizeof term + size);
  term.fes = fes;
  term.fei = fei;
  uint8_t* at = out_.Head(sizeof term + size);
  memcpy(at, &term, sizeof term);
  if (size > 0) memcpy(at + sizeof term, header, size);
  try {
    Flush();
  } catch (const SysError&) {
    // what it did wrong is the better answer
  }
  throw SysError(EPROTO, "nvme/tcp", what);
}

bool Queue::Receive() {
  iov_.clear();
  const bool direct = data_ && !digest_due_ && have_ == 0 && data_left_ >= kDirect;
  if (direct) Slice(data_->parts, data_->count, data_->skip + data_->moved, data_left_, iov_);
  if (iov_.size() >= IOV_MAX) iov_.resize(IOV_MAX - 1);
  size_t known = 0;
  for (const iovec& part : iov_) known += part.iov_len;
  const size_t behind = known < data_left_ && direct ? 0 : std::min(ahead_, kInBuffer - have_);
  if (behind > 0) iov_.push_back({in_.get() + have_, behind});
  const ssize_t n = stream_->Read(iov_.data(), static_cast<int>(iov_.size()));
  if (n == -EAGAIN) return false;
  if (n < 0) throw SysError(static_cast<int>(-n), "recv");
  if (n == 0) throw SysError(ECONNRESET, "recv", "the target closed the connection");
  const size_t placed = std::min(static_cast<size_t>(n), known);
  if (placed > 0) {
    if (out_.data_digest)
      for (size_t left = placed, i = 0; left > 0; i++) {
        const size_t part = std::min(left, iov_[i].iov_len);
        crc_ = Crc32c(iov_[i].iov_base, part, crc_);
        left -= part;
      }
    DataCame(placed);
  }
  have_ += static_cast<size_t>(n) - placed;
  const size_t used = Parse(in_.get(), have_);
  // What is left is less than one header: data is taken as it comes.
  memmove(in_.get(), in_.get() + used, have_ - used);
  have_ -= used;
  return true;
}

size_t Queue::Parse(const uint8_t* bytes, size_t size) {
  size_t at = 0;
  while (true) {
    const size_t left = size - at;
    size_t used = 0;
    if (data_ || digest_due_)
      used = TakeData(bytes + at, left);
    else if (left >= sizeof(CommonHeader))
      used = Header(bytes + at, left);
    if (used == 0) return at;
    at += used;
  }
}

size_t Queue::TakeData(const uint8_t* bytes, size_t left) {
  if (digest_due_) {
    if (left < kDigest) return 0;
    uint32_t got;
    memcpy(&got, bytes, kDigest);
    if (got != crc_) data_->bad_digest = true;
    digest_due_ = false;
    FinishData();
    return kDigest;
  }
  const size_t n = std::min<size_t>(left, data_left_);
  if (n == 0) return 0;
  storage::Through(data_->parts, data_->count, data_->skip + data_->moved, n,
                   [bytes](std::byte* part, uint64_t done, uint64_t some) { memcpy(part, bytes + done, some); });
  if (out_.data_digest) crc_ = Crc32c(bytes, n, crc_);
  DataCame(n);
  return n;
}

void Queue::DataCame(size_t size) {
  data_->moved += static_cast<uint32_t>(size);
  data_left_ -= static_cast<uint32_t>(size);
  if (data_left_ > 0) return;
  if (out_.data_digest)
    digest_due_ = true;
  else
    FinishData();
}

void Queue::Terminated(const uint8_t* bytes, size_t left) const {
  TermReq term{};
  memcpy(&term, bytes, std::min(left, sizeof term));
  throw SysError(EPROTO, "nvme/tcp",
                 "the target ended the connection (C2HTermReq, FES " + std::to_string(term.fes) + ", FEI " +
                     std::to_string(term.fei) + ")");
}

// One header with digest and padding. Returns the bytes taken, 0 if they are not all here.
size_t Queue::Header(const uint8_t* bytes, size_t left) {
  CommonHeader ch;
  memcpy(&ch, bytes, sizeof ch);
  if (ch.type == kC2hTermReq) {
    // It may come in parts; its end, or that of the connection, is near.
    if (left < sizeof(TermReq)) return 0;
    Terminated(bytes, left);
  }
  if (ch.type == kIcResp) Broken("ICResp at the wrong time", kFesSequence, 0, bytes, sizeof ch);
  const PduTerms terms{.to_controller = false, .header_digest = out_.header_digest, .data_digest = out_.data_digest};
  uint32_t want = 0;
  if (const PduFault fault = CheckHeader(ch, terms, &want))
    Broken(FieldName(fault.fei), static_cast<Fes>(fault.fes), fault.fei, bytes, sizeof ch);
  // Whatever command it will name: none has so much data.
  if (ch.type == kC2hData && ch.plen > longest_ + ch.pdo + kDigest)
    Broken("more data than any command has", kFesLimit, 0, bytes, sizeof ch);
  if (left < want) return 0;
  if (out_.header_digest) {
    uint32_t got;
    memcpy(&got, bytes + ch.hlen, kDigest);
    if (got != Crc32c(bytes, ch.hlen)) Broken("Header Digest Error", kFesHeaderDigest, got, bytes, ch.hlen);
  }
  if (ch.type == kC2hData) {
    Data header;
    memcpy(&header, bytes, sizeof header);
    StartData(header);
  } else if (ch.type == kR2t) {
    R2t header;
    memcpy(&header, bytes, sizeof header);
    Answer(header);
  } else {
    CapsuleResp header;
    memcpy(&header, bytes, sizeof header);
    Command* command = Find(header.cqe.cid, kCidAt, &header);
    command->cqe = header.cqe;
    if (command->status() == kOk && command->direction != kNoData && command->moved != command->length &&
        !MayBeShort(*command))
      Broken("success before all data was moved", kFesSequence, 0, &header, sizeof header);
    End(command, command->bad_digest ? EBADMSG : 0);
  }
  return want;
}

Command* Queue::Find(uint16_t cid, uint32_t fei, const void* header) {
  const size_t slot = cid & ((1u << slot_bits_) - 1);
  Command* command = slot < slots_.size() ? slots_[slot] : nullptr;
  if (!command || command->cid != cid)
    Broken("a command that is not outstanding", kFesHeader, fei, header, sizeof(R2t));
  return command;
}

void Queue::StartData(const Data& header) {
  Command* command = Find(header.cccid, kCccidAt, &header);
  const uint32_t digest = out_.data_digest ? kDigest : 0;
  if (command->direction != kToHost)
    Broken("data for a command that reads nothing", kFesHeader, kCccidAt, &header, sizeof header);
  if (header.ch.plen <= header.ch.pdo + digest || header.datal != header.ch.plen - header.ch.pdo - digest)
    Broken("wrong DATAL", kFesHeader, kDatalAt, &header, sizeof header);
  if (header.datal > command->length || header.datao > command->length - header.datal)
    Broken("data beyond the command", kFesRange, 0, &header, sizeof header);
  if (header.datao != command->moved) Broken("wrong DATAO", kFesSequence, 0, &header, sizeof header);
  if ((header.ch.flags & kSuccess) && !(header.ch.flags & kLastPdu))
    Broken("SUCCESS without LAST_PDU", kFesHeader, 1, &header, sizeof header);
  data_ = command;
  data_flags_ = header.ch.flags;
  data_left_ = data_size_ = header.datal;
  crc_ = 0;
  ahead_ = data_size_ >= 2 * kDirect ? kBehindLarge : kInBuffer;
}

void Queue::FinishData() {
  Command* command = std::exchange(data_, nullptr);
  if ((data_flags_ & kLastPdu) && command->moved != command->length && !MayBeShort(*command))
    Broken("LAST_PDU before the end", kFesSequence, 0);
  if (!(data_flags_ & kSuccess)) return;
  command->cqe = {};
  command->cqe.cid = command->cid;
  End(command, command->bad_digest ? EBADMSG : 0);
}

void Queue::Answer(const R2t& ask) {
  Command* command = Find(ask.cccid, kCccidAt, &ask);
  if (command->direction != kToController || command->in_capsule)
    Broken("R2T for a command that has nothing to send", kFesHeader, kCccidAt, &ask, sizeof ask);
  if (ask.r2tl == 0) Broken("R2T of 0 bytes", kFesHeader, kDatalAt, &ask, sizeof ask);
  if (ask.r2tl > command->length || ask.r2to > command->length - ask.r2tl)
    Broken("R2T beyond the command", kFesRange, 0, &ask, sizeof ask);
  if (ask.r2to != command->moved) Broken("wrong R2TO", kFesSequence, kDataoAt, &ask, sizeof ask);
  // One at a time was agreed (MAXR2T 0): the data of the one before has left.
  if (out_.sent() < command->answered) Broken("more R2Ts than MAXR2T", kFesLimit, 0, &ask, sizeof ask);
  command->moved += ask.r2tl;
  for (uint32_t at = 0; at < ask.r2tl;) {
    const uint32_t size = std::min(ask.r2tl - at, max_h2c_);
    Data header{};
    header.ch = {.type = kH2cData, .flags = 0, .hlen = sizeof header, .pdo = 0, .plen = 0};
    header.cccid = ask.cccid;
    header.ttag = ask.ttag;
    header.datao = ask.r2to + at;
    header.datal = size;
    if (at + size == ask.r2tl) header.ch.flags = kLastPdu;
    out_.Put(&header, sizeof header, command, header.datao, size);
    at += size;
  }
  command->answered = out_.put();
}

void Queue::End(Command* command, int err) {
  if (command->unsent > 0 && !out_.Keep(command))
    Broken("commands end while their data is on its way", kFesSequence, 0);
  const auto slot = static_cast<uint16_t>(command->cid & ((1u << slot_bits_) - 1));
  slots_[slot] = nullptr;
  free_.push_back(slot);
  command->done(command, err);
}

void Queue::Fail(int err) {
  data_ = nullptr;
  out_.Forget();
  for (size_t slot = 0; slot < slots_.size(); slot++) {
    Command* command = std::exchange(slots_[slot], nullptr);
    if (!command) continue;
    free_.push_back(static_cast<uint16_t>(slot));
    command->unsent = 0;
    command->done(command, err);
  }
}

// --- what waits

void Queue::Negotiate(const Wait& wait) {
  IcReq hello{};
  hello.ch = {.type = kIcReq, .flags = 0, .hlen = sizeof hello, .pdo = 0, .plen = sizeof hello};
  hello.dgst = static_cast<uint8_t>((options_.header_digest ? 1 : 0) | (options_.data_digest ? 2 : 0));
  memcpy(out_.Head(sizeof hello), &hello, sizeof hello);
  while (sending())
    if (!Flush()) wait.For(fd(), POLLOUT);
  // Exactly these bytes: what follows belongs to the next PDU.
  IcResp answer;
  for (size_t got = 0; got < sizeof answer;) {
    iovec rest{reinterpret_cast<uint8_t*>(&answer) + got, sizeof answer - got};
    const ssize_t n = stream_->Read(&rest, 1);
    if (n == -EAGAIN)
      wait.For(fd(), POLLIN);
    else if (n < 0)
      throw SysError(static_cast<int>(-n), "recv");
    else if (n == 0)
      throw SysError(ECONNRESET, "recv", "the target closed the connection");
    else
      got += static_cast<size_t>(n);
    // The first eight bytes say what comes; a TermReq is shorter.
    if (got < sizeof(CommonHeader)) continue;
    if (answer.ch.type == kC2hTermReq && got >= sizeof(TermReq))
      Terminated(reinterpret_cast<const uint8_t*>(&answer), got);
    uint32_t need = 0;
    const PduTerms terms{.to_controller = false};
    if (const PduFault fault = CheckHeader(answer.ch, terms, &need))
      Broken(FieldName(fault.fei), static_cast<Fes>(fault.fes), fault.fei, &answer, sizeof answer.ch);
    if (answer.ch.type != kIcResp && answer.ch.type != kC2hTermReq)
      Broken("no ICResp", kFesSequence, 0, &answer, sizeof answer.ch);
  }
  if (answer.pfv != 0) Broken("wrong PFV of ICResp", kFesUnsupported, kPfvAt, &answer, sizeof answer);
  if (answer.cpda > kMaxCpda) Broken("wrong CPDA of ICResp", kFesHeader, kCpdaAt, &answer, sizeof answer);
  if (answer.dgst & ~hello.dgst) Broken("a digest that was not asked for", kFesHeader, kDgstAt, &answer, sizeof answer);
  if (answer.maxh2cdata < kLeastH2c || answer.maxh2cdata % 4 != 0)
    Broken("wrong MAXH2CDATA", kFesHeader, kMaxH2cAt, &answer, sizeof answer);
  if (answer.dgst != hello.dgst) throw SysError(ENOTSUP, "nvme/tcp", "the target does not do the digest asked for");
  max_h2c_ = answer.maxh2cdata;
  out_.align = (answer.cpda + 1u) * 4;
  out_.header_digest = options_.header_digest;
  out_.data_digest = options_.data_digest;
}

Cqe Queue::Call(Command& command, const Wait& wait) {
  struct Result {
    bool over = false;
    int err = 0;
  } result;
  command.owner = &result;
  command.done = [](Command* done, int err) {
    auto* to = static_cast<Result*>(done->owner);
    to->over = true;
    to->err = err;
  };
  Submit(&command, os::NowNs());
  try {
    while (!result.over) {
      wait.Check();  // a target that always has something to say must not keep us
      const bool moved = Flush();
      if (Receive() || moved || (pending() && !sending())) continue;
      wait.For(fd(), static_cast<short>(POLLIN | (sending() ? POLLOUT : 0)));
    }
  } catch (const SysError&) {
    // The command is the caller's: nothing may refer to it any more. The connection is of no use now.
    Fail(ECONNRESET);
    throw;
  }
  if (result.err != 0) throw SysError(result.err, "nvme/tcp", "data digest");
  return command.cqe;
}

}  // namespace vioctl::nvme::host
