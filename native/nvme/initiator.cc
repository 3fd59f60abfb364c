#include "nvme/initiator.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <thread>

#include "common/crc32c.h"
#include "common/error.h"
#include "nvme/command.h"
#include "nvme/pdu.h"
#include "os/clock.h"
#include "os/fd.h"
#include "os/socket.h"

namespace vioctl::nvme {

void Histogram::Add(uint64_t ns) {
  size_t index = ns;
  if (ns >= 64) {
    const int power = 63 - std::countl_zero(ns);
    index = 64 + static_cast<size_t>(power - 6) * 32 + ((ns >> (power - 5)) & 31);
  }
  buckets_[index]++;
  count_++;
  sum_ += static_cast<double>(ns);
  min_ = std::min(min_, ns);
  max_ = std::max(max_, ns);
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; i++) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

uint64_t Histogram::Percentile(double part) const {
  const auto wanted = static_cast<uint64_t>(part * static_cast<double>(count_));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; i++) {
    seen += buckets_[i];
    if (seen == 0 || seen < wanted) continue;
    if (i < 64) return i;
    const size_t power = (i - 64) / 32 + 6;
    const uint64_t low = (1ULL << power) + ((i - 64) % 32 << (power - 5));
    return std::min<uint64_t>(max_, low + (1ULL << (power - 5)) / 2);
  }
  return 0;
}

namespace {

// Fields of the common header by their offsets, as CheckHeader names them.
constexpr const char* kFieldNames[] = {"PDU type", "FLAGS", "HLEN", "PDO", "PLEN"};

constexpr size_t kReceiveBuffer = 512 * 1024;
constexpr uint16_t kConnectCid = 0xFFF0;

[[noreturn]] void Broken(const char* what) { throw SysError(EPROTO, "nvme/tcp", what); }

// Bytes on their way out. Keeps its memory.
class Outgoing {
 public:
  uint8_t* Extend(size_t size) {
    if (end_ + size > bytes_.size()) bytes_.resize(std::max(bytes_.size() * 2, end_ + size));
    uint8_t* at = bytes_.data() + end_;
    end_ += size;
    return at;
  }
  bool empty() const { return start_ == end_; }
  // Sends what the socket takes. Returns whether anything left.
  bool Flush(int fd) {
    bool sent = false;
    while (start_ < end_) {
      const ssize_t n = ::send(fd, bytes_.data() + start_, end_ - start_, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) {
        if (errno == EAGAIN) return sent;
        if (errno == EINTR) continue;
        // the same end, whether sending or receiving meets it first
        throw SysError(errno == EPIPE ? ECONNRESET : errno, "send");
      }
      start_ += static_cast<size_t>(n);
      sent = true;
    }
    start_ = end_ = 0;
    return sent;
  }

 private:
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(256 * 1024);
  size_t start_ = 0, end_ = 0;
};

// One connection. A command's identifier is its place in `commands_`.
class Queue {
 public:
  Queue(const LoadOptions& options, uint16_t qid, uint64_t seed)
      : o_(options), size_(options.io_blocks * options.block_size), random_(seed), rx_(kReceiveBuffer) {
    commands_.resize(static_cast<size_t>(options.depth));
    free_.reserve(commands_.size());
    for (size_t i = commands_.size(); i-- > 0;) free_.push_back(static_cast<uint16_t>(i));
    if (o_.read_percent < 100) {
      data_.resize(size_);
      for (uint8_t& byte : data_) byte = static_cast<uint8_t>(Random());
    }
    position_ = o_.first + (o_.blocks / static_cast<uint64_t>(o_.queues)) * (qid - 1u) / o_.io_blocks * o_.io_blocks;
    Open(qid);
  }

  int fd() const { return socket_.get(); }
  bool sending() const { return !tx_.empty(); }
  size_t outstanding() const { return commands_.size() - free_.size(); }

  // Submits commands until the queue is full.
  void Fill(uint64_t now) {
    while (!free_.empty()) {
      const uint16_t cid = free_.back();
      free_.pop_back();
      Submit(cid, now);
    }
  }
  bool Flush() { return tx_.Flush(fd()); }

  // Takes what has come. Returns whether anything had.
  bool Receive(LoadResult& result, bool counts) {
    const ssize_t n = ::recv(fd(), rx_.data() + have_, rx_.size() - have_, MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) return false;
      throw SysError(errno, "recv");
    }
    if (n == 0) throw SysError(ECONNRESET, "recv", "the target closed the connection");
    have_ += static_cast<size_t>(n);
    now_ = os::NowNs();
    Parse(result, counts);
    return true;
  }

 private:
  struct Command {
    uint64_t started = 0;
    uint32_t moved = 0;
    bool active = false, write = false, in_capsule = false;
  };

  uint64_t Random() {  // splitmix64
    uint64_t z = (random_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }

  uint64_t NextBlock() {
    const uint64_t places = o_.blocks / o_.io_blocks;
    if (o_.random) return o_.first + Random() % places * o_.io_blocks;
    const uint64_t at = position_;
    position_ += o_.io_blocks;
    if (position_ + o_.io_blocks > o_.first + o_.blocks) position_ = o_.first;
    return at;
  }

  void Submit(uint16_t cid, uint64_t now) {
    Command& command = commands_[cid];
    const bool write =
        o_.read_percent == 0 || (o_.read_percent < 100 && Random() % 100 >= static_cast<uint64_t>(o_.read_percent));
    command = {.started = now, .active = true, .write = write, .in_capsule = write && size_ <= o_.in_capsule};
    CapsuleCmd capsule{};
    capsule.sqe.opcode = write ? kWrite : kRead;
    capsule.sqe.flags = 0x40;
    capsule.sqe.cid = cid;
    capsule.sqe.nsid = o_.nsid;
    capsule.sqe.sgl.length = size_;
    capsule.sqe.sgl.id = command.in_capsule ? kSglInCapsule : kSglCommandBuffer;
    const uint64_t slba = NextBlock();
    capsule.sqe.cdw10 = static_cast<uint32_t>(slba);
    capsule.sqe.cdw11 = static_cast<uint32_t>(slba >> 32);
    capsule.sqe.cdw12 = o_.io_blocks - 1;
    capsule.ch = {.type = kCapsuleCmd, .flags = 0, .hlen = sizeof capsule, .pdo = 0, .plen = 0};
    Put(&capsule, sizeof capsule, command.in_capsule ? data_.data() : nullptr, command.in_capsule ? size_ : 0);
  }

  // A PDU: header with its digest, padding, data with its digest. PLEN, PDO and the digest flags are set here.
  void Put(void* header, size_t hlen, const uint8_t* data, size_t size) {
    const size_t end = hlen + (header_digest_ ? 4 : 0);
    const size_t pdo = size ? (end + align_ - 1) / align_ * align_ : end;
    const size_t plen = pdo + size + (size && data_digest_ ? 4 : 0);
    auto* ch = static_cast<CommonHeader*>(header);
    if (header_digest_) ch->flags |= kHdgstFlag;
    if (size && data_digest_) ch->flags |= kDdgstFlag;
    ch->pdo = static_cast<uint8_t>(size ? pdo : 0);
    ch->plen = static_cast<uint32_t>(plen);
    uint8_t* at = tx_.Extend(plen);
    memcpy(at, header, hlen);
    if (header_digest_) {
      const uint32_t crc = Crc32c(header, hlen);
      memcpy(at + hlen, &crc, 4);
    }
    memset(at + end, 0, pdo - end);
    if (!size) return;
    memcpy(at + pdo, data, size);
    if (data_digest_) {
      const uint32_t crc = Crc32c(at + pdo, size);
      memcpy(at + pdo + size, &crc, 4);
    }
  }

  void Parse(LoadResult& result, bool counts) {
    size_t at = 0;
    for (;;) {
      const size_t left = have_ - at;
      if (data_left_ > 0) {
        const size_t n = std::min<size_t>(left, data_left_);
        if (data_digest_) crc_ = Crc32c(rx_.data() + at, n, crc_);
        at += n;
        data_left_ -= static_cast<uint32_t>(n);
        if (data_left_ > 0) break;
        if (!data_digest_)
          FinishData(result, counts);
        else
          digest_due_ = true;
        continue;
      }
      if (digest_due_) {
        if (left < 4) break;
        uint32_t got;
        memcpy(&got, rx_.data() + at, 4);
        if (got != crc_) throw SysError(EBADMSG, "nvme/tcp", "data digest");
        digest_due_ = false;
        at += 4;
        FinishData(result, counts);
        continue;
      }
      if (left < sizeof(CommonHeader)) break;
      const size_t used = Header(rx_.data() + at, left, result, counts);
      if (used == 0) break;
      at += used;
    }
    // What is left is less than one header: data is taken as it comes.
    memmove(rx_.data(), rx_.data() + at, have_ - at);
    have_ -= at;
  }

  // One header with digest and padding. Returns the bytes taken, 0 if they are not all here.
  size_t Header(const uint8_t* bytes, size_t left, LoadResult& result, bool counts) {
    CommonHeader ch;
    memcpy(&ch, bytes, sizeof ch);
    if (ch.type == kC2hTermReq) throw SysError(EPROTO, "nvme/tcp", "the target ended the connection (C2HTermReq)");
    if (ch.type == kIcResp) Broken("a second ICResp");
    const PduTerms terms{.to_controller = false, .header_digest = header_digest_, .data_digest = data_digest_};
    uint32_t want = 0;
    if (const PduFault fault = CheckHeader(ch, terms, &want)) Broken(kFieldNames[fault.fei]);
    const bool data = ch.type == kC2hData;
    if (left < want) return 0;
    if (header_digest_) {
      uint32_t got;
      memcpy(&got, bytes + ch.hlen, 4);
      if (got != Crc32c(bytes, ch.hlen)) throw SysError(EBADMSG, "nvme/tcp", "header digest");
    }
    if (data) {
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
      Command& command = Find(header.cqe.cid);
      const bool ok = (header.cqe.status >> 1) == 0;
      if (ok && command.moved != (command.in_capsule ? 0 : size_)) Broken("success before all data was moved");
      Complete(header.cqe.cid, header.cqe.status, result, counts);
    }
    return want;
  }

  Command& Find(uint16_t cid) {
    if (cid >= commands_.size() || !commands_[cid].active) Broken("a command that is not outstanding");
    return commands_[cid];
  }

  void StartData(const Data& header) {
    Command& command = Find(header.cccid);
    const uint32_t size = header.ch.plen - header.ch.pdo - (data_digest_ ? 4 : 0);
    if (header.ch.plen < header.ch.pdo + (data_digest_ ? 5u : 1u) || header.datal != size) Broken("DATAL");
    if (command.write || header.datao != command.moved || size > size_ - command.moved) Broken("DATAO or DATAL");
    if ((header.ch.flags & kSuccess) && !(header.ch.flags & kLastPdu)) Broken("SUCCESS without LAST_PDU");
    data_cid_ = header.cccid;
    data_flags_ = header.ch.flags;
    data_left_ = size;
    data_size_ = size;
    crc_ = 0;
  }

  void FinishData(LoadResult& result, bool counts) {
    Command& command = commands_[data_cid_];
    command.moved += data_size_;
    if ((data_flags_ & kLastPdu) && command.moved != size_) Broken("LAST_PDU before the end");
    if (data_flags_ & kSuccess) Complete(data_cid_, 0, result, counts);
  }

  void Answer(const R2t& ask) {
    Command& command = Find(ask.cccid);
    if (!command.write || command.in_capsule || ask.r2tl == 0 || ask.r2to != command.moved ||
        ask.r2tl > size_ - command.moved)
      Broken("R2T");
    command.moved += ask.r2tl;
    for (uint32_t at = 0; at < ask.r2tl;) {
      const uint32_t size = std::min(ask.r2tl - at, maxh2cdata_);
      Data header{};
      header.ch = {.type = kH2cData, .flags = 0, .hlen = sizeof header, .pdo = 0, .plen = 0};
      header.cccid = ask.cccid;
      header.ttag = ask.ttag;
      header.datao = ask.r2to + at;
      header.datal = size;
      if (at + size == ask.r2tl) header.ch.flags = kLastPdu;
      Put(&header, sizeof header, data_.data() + ask.r2to + at, size);
      at += size;
    }
  }

  void Complete(uint16_t cid, uint16_t status, LoadResult& result, bool counts) {
    Command& command = commands_[cid];
    command.active = false;
    free_.push_back(cid);
    if ((status >> 1) != 0) {
      if (result.errors++ == 0) result.first_error = status;
    } else if (counts) {
      (command.write ? result.writes : result.reads)++;
      result.latency.Add(now_ - command.started);
    }
  }

  // TCP, ICReq and ICResp, Connect: blocking, within the time-out.
  void Open(uint16_t qid) {
    deadline_ = os::NowNs() + o_.timeout_ms * 1'000'000;
    addrinfo hints{}, *list = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    const std::string port = std::to_string(o_.port);
    if (getaddrinfo(o_.address.c_str(), port.c_str(), &hints, &list) != 0)
      throw SysError(EADDRNOTAVAIL, "getaddrinfo", o_.address);
    std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, &freeaddrinfo);
    socket_ = os::NewSocket(list->ai_family, SOCK_STREAM);
    const int one = 1;
    Check(setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "setsockopt");
    timeval limit{static_cast<time_t>(o_.timeout_ms / 1000), static_cast<suseconds_t>(o_.timeout_ms % 1000 * 1000)};
    Check(setsockopt(fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "setsockopt");
    Check(setsockopt(fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), "setsockopt");
    os::Connect(fd(), list->ai_addr, list->ai_addrlen, o_.address);

    IcReq hello{};
    hello.ch = {.type = kIcReq, .flags = 0, .hlen = sizeof hello, .pdo = 0, .plen = sizeof hello};
    hello.dgst = static_cast<uint8_t>((o_.header_digest ? 1 : 0) | (o_.data_digest ? 2 : 0));
    WriteAll(&hello, sizeof hello);
    IcResp answer;
    ReadAll(&answer, sizeof answer);
    uint32_t need = 0;
    if (answer.ch.type != kIcResp || CheckHeader(answer.ch, {.to_controller = false}, &need) || answer.pfv != 0)
      Broken("ICResp");
    if (answer.dgst & ~hello.dgst) Broken("a digest that was not asked for");
    if (answer.dgst != hello.dgst) throw SysError(ENOTSUP, "nvme/tcp", "digests");
    if (answer.maxh2cdata < 4096 || answer.maxh2cdata % 4 != 0 || answer.cpda > 31) Broken("ICResp");
    maxh2cdata_ = answer.maxh2cdata;
    align_ = (answer.cpda + 1u) * 4;
    header_digest_ = o_.header_digest;
    data_digest_ = o_.data_digest;

    std::vector<uint8_t> data(1024);
    memcpy(data.data(), o_.hostid.data(), 16);
    memcpy(data.data() + 16, &o_.cntlid, 2);
    memcpy(data.data() + 256, o_.subnqn.data(), std::min<size_t>(o_.subnqn.size(), 223));
    memcpy(data.data() + 512, o_.hostnqn.data(), std::min<size_t>(o_.hostnqn.size(), 223));
    CapsuleCmd connect{};
    connect.ch = {.type = kCapsuleCmd, .flags = 0, .hlen = sizeof connect, .pdo = 0, .plen = 0};
    connect.sqe.opcode = kFabrics;
    connect.sqe.flags = 0x40;
    connect.sqe.cid = kConnectCid;
    connect.sqe.nsid = 1;  // FCTYPE Connect
    connect.sqe.sgl.length = 1024;
    connect.sqe.sgl.id = kSglInCapsule;
    connect.sqe.cdw10 = static_cast<uint32_t>(qid) << 16;
    connect.sqe.cdw11 = static_cast<uint32_t>(o_.entries - 1) | (o_.flow_control ? 0u : 4u << 16);
    Put(&connect, sizeof connect, data.data(), data.size());
    while (!tx_.empty())
      if (!tx_.Flush(fd())) WaitFor(POLLOUT);
    CapsuleResp reply;
    ReadAll(&reply, sizeof reply);
    uint32_t digest = 0;
    if (header_digest_) ReadAll(&digest, sizeof digest);
    if (reply.ch.type != kCapsuleResp || reply.cqe.cid != kConnectCid) Broken("the answer to Connect");
    if ((reply.cqe.status >> 1) != 0) throw SysError(ECONNREFUSED, "nvme/tcp", "Connect of an I/O queue");
  }

  void WaitFor(short events) {
    pollfd p{fd(), events, 0};
    if (Check(::poll(&p, 1, static_cast<int>(o_.timeout_ms)), "poll") == 0) throw SysError(ETIMEDOUT, "nvme/tcp");
  }
  void WriteAll(const void* data, size_t size) {
    for (size_t at = 0; at < size;)
      at += static_cast<size_t>(
          Check(::send(fd(), static_cast<const uint8_t*>(data) + at, size - at, MSG_NOSIGNAL), "send"));
  }
  // All of it within the time that connecting may take, however slowly it trickles.
  void ReadAll(void* data, size_t size) {
    for (size_t at = 0; at < size;) {
      const uint64_t now = os::NowNs();
      pollfd p{fd(), POLLIN, 0};
      const int wait = now >= deadline_ ? 0 : static_cast<int>((deadline_ - now) / 1'000'000 + 1);
      if (Check(::poll(&p, 1, wait), "poll") == 0) throw SysError(ETIMEDOUT, "recv");
      const ssize_t n = ::recv(fd(), static_cast<uint8_t*>(data) + at, size - at, 0);
      if (n == 0) throw SysError(ECONNRESET, "recv", "the target closed the connection");
      if (n < 0) throw SysError(errno == EAGAIN ? ETIMEDOUT : errno, "recv");
      at += static_cast<size_t>(n);
    }
  }

  const LoadOptions& o_;
  const uint32_t size_;
  Fd socket_;
  uint64_t random_, position_ = 0, now_ = 0, deadline_ = 0;
  std::vector<Command> commands_;
  std::vector<uint16_t> free_;
  std::vector<uint8_t> data_;
  Outgoing tx_;
  std::vector<uint8_t> rx_;
  size_t have_ = 0;
  // The C2HData whose data is coming.
  uint32_t data_left_ = 0, data_size_ = 0, crc_ = 0;
  uint16_t data_cid_ = 0;
  uint8_t data_flags_ = 0;
  bool digest_due_ = false;
  bool header_digest_ = false, data_digest_ = false;
  uint32_t align_ = 4, maxh2cdata_ = 4096;
};

// Drives some queues until the end.
void Drive(const LoadOptions& o, std::vector<std::unique_ptr<Queue>>& queues, const std::atomic<bool>& stop,
           LoadResult& result) {
  std::vector<pollfd> polls(queues.size());
  const uint64_t begin = os::NowNs() + o.warmup_ms * 1000000;
  const uint64_t end = begin + o.duration_ms * 1000000;
  uint64_t last = os::NowNs(), counted = 0;
  for (;;) {
    const uint64_t now = os::NowNs();
    const bool over = now >= end || stop.load(std::memory_order_relaxed);
    bool progress = false;
    size_t outstanding = 0;
    for (auto& queue : queues) {
      if (!over) queue->Fill(now);
      progress |= queue->Flush();
      progress |= queue->Receive(result, now >= begin && !over);
      outstanding += queue->outstanding();
    }
    if (over) {
      if (counted == 0) counted = now;
      if (outstanding == 0) break;
      // What trickles is progress, but not for ever.
      if (now - counted > o.timeout_ms * 1000000) throw SysError(ETIMEDOUT, "nvme/tcp", "commands do not end");
    }
    if (progress) {
      last = now;
      continue;
    }
    if (now - last > o.timeout_ms * 1000000) throw SysError(ETIMEDOUT, "nvme/tcp", "no completion");
    if (now - last < o.spin_us * 1000) continue;
    for (size_t i = 0; i < queues.size(); i++)
      polls[i] = {queues[i]->fd(), static_cast<short>(POLLIN | (queues[i]->sending() ? POLLOUT : 0)), 0};
    if (::poll(polls.data(), polls.size(), 20) < 0 && errno != EINTR) throw SysError(errno, "poll");
  }
  result.seconds = counted > begin ? static_cast<double>(counted - begin) / 1e9 : 0;
}

}  // namespace

LoadResult Run(const LoadOptions& options, const std::atomic<bool>& stop) {
  const int threads = std::clamp(options.threads, 1, options.queues);
  std::vector<std::vector<std::unique_ptr<Queue>>> shares(static_cast<size_t>(threads));
  for (int q = 0; q < options.queues; q++)
    shares[static_cast<size_t>(q % threads)].push_back(std::make_unique<Queue>(
        options, static_cast<uint16_t>(q + 1), options.seed * 1000003 + static_cast<uint64_t>(q)));
  std::vector<LoadResult> results(shares.size());
  std::vector<std::exception_ptr> failures(shares.size());
  std::vector<std::thread> workers;
  for (size_t i = 0; i < shares.size(); i++)
    workers.emplace_back([&, i] {
      try {
        Drive(options, shares[i], stop, results[i]);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    });
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
  LoadResult sum;
  for (const LoadResult& one : results) {
    sum.reads += one.reads;
    sum.writes += one.writes;
    if (sum.errors == 0) sum.first_error = one.first_error;
    sum.errors += one.errors;
    sum.seconds = std::max(sum.seconds, one.seconds);
    sum.latency.Merge(one.latency);
  }
  return sum;
}

}  // namespace vioctl::nvme
