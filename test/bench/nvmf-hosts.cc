// Many hosts of an NVMe/TCP target, each with an admin queue and one I/O queue: connects them all at once, then keeps
// some 4 KiB random reads outstanding on each, and prints what came of it as JSON: seconds until all were connected,
// reads, seconds, CPU time of the target's process per read in ns, latency in µs.
//
//   nvmf-hosts PORT TARGET-PID SUBNQN HOSTS DEPTH SECONDS BYTES-OF-THE-NAMESPACE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "nvme/wire.h"

namespace {

using namespace vioctl::nvme;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kBlock = 4096, kShift = 9, kMostDepth = 64;
constexpr uint16_t kEntries = 128;
constexpr uint32_t kCc = 0x14, kCcEnable = 0x00460001;  // entries of 64 and 16 bytes

[[noreturn]] void Fail(const char* what) {
  perror(what);
  exit(1);
}

struct Queue {
  int fd = -1;
  std::vector<uint8_t> rest;  // of a PDU that has not come whole
  uint32_t skip = 0;          // bytes of data that are still to come
  uint64_t started[kMostDepth];
};

uint64_t Now() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count());
}

// CPU time of a process, ns.
uint64_t CpuOf(pid_t pid) {
  clockid_t clock;
  timespec used;
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &used) != 0) Fail("clock of the target");
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

void SendAll(int fd, const void* data, size_t size) {
  if (::send(fd, data, size, MSG_NOSIGNAL) != static_cast<ssize_t>(size)) Fail("send");
}

void ReceiveAll(int fd, void* data, size_t size) {
  if (::recv(fd, data, size, MSG_WAITALL) != static_cast<ssize_t>(size)) Fail("recv");
}

int Dial(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  if (fd < 0) Fail("socket");
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) Fail("connect");
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

void Greet(int fd) {
  IcReq request{};
  request.ch = {kIcReq, 0, sizeof request, 0, sizeof request};
  SendAll(fd, &request, sizeof request);
}

void Greeted(int fd) {
  IcResp response;
  ReceiveAll(fd, &response, sizeof response);
}

void SendConnect(int fd, uint32_t host, const char* subnqn, uint16_t qid, uint16_t cntlid) {
  struct {
    CapsuleCmd capsule{};
    ConnectData data{};
  } pdu;
  pdu.capsule.ch = {kCapsuleCmd, 0, sizeof(CapsuleCmd), sizeof(CapsuleCmd), sizeof pdu};
  Sqe& sqe = pdu.capsule.sqe;
  sqe.opcode = kFabrics;
  sqe.flags = 0x40;
  sqe.nsid = kConnect;
  sqe.sgl.length = sizeof(ConnectData);
  sqe.sgl.id = kSglInCapsule;
  sqe.cdw10 = uint32_t{qid} << 16;
  sqe.cdw11 = qid == 0 ? 31 : kEntries - 1;
  memcpy(pdu.data.hostid, &host, sizeof host);
  pdu.data.hostid[15] = 1;
  pdu.data.cntlid = cntlid;
  snprintf(reinterpret_cast<char*>(pdu.data.subnqn), sizeof pdu.data.subnqn, "%s", subnqn);
  snprintf(reinterpret_cast<char*>(pdu.data.hostnqn), sizeof pdu.data.hostnqn, "nqn.2014-08.org.example:host%u", host);
  SendAll(fd, &pdu, sizeof pdu);
}

uint32_t Answer(int fd) {
  CapsuleResp response;
  ReceiveAll(fd, &response, sizeof response);
  if (response.ch.type != kCapsuleResp || response.cqe.status != 0) {
    fprintf(stderr, "status %04x\n", response.cqe.status);
    exit(1);
  }
  return static_cast<uint32_t>(response.cqe.result);
}

void SendEnable(int fd) {
  CapsuleCmd capsule{};
  capsule.ch = {kCapsuleCmd, 0, sizeof capsule, 0, sizeof capsule};
  capsule.sqe.opcode = kFabrics;
  capsule.sqe.flags = 0x40;
  capsule.sqe.nsid = kPropertySet;
  capsule.sqe.cdw11 = kCc;
  capsule.sqe.cdw12 = kCcEnable;
  SendAll(fd, &capsule, sizeof capsule);
}

class Load {
 public:
  Load(std::vector<Queue>& queues, uint32_t depth, uint64_t blocks) : queues_(queues), depth_(depth), blocks_(blocks) {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < queues.size(); i++) {
      epoll_event event{EPOLLIN, {.u32 = i}};
      if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, queues[i].fd, &event) != 0) Fail("epoll_ctl");
    }
  }

  void Run(double seconds) {
    for (Queue& queue : queues_) {
      for (uint32_t cid = 0; cid < depth_; cid++) Read(queue, static_cast<uint16_t>(cid));
      Send(queue);
    }
    const uint64_t end = Now() + static_cast<uint64_t>(seconds * 1e9);
    epoll_event events[256];
    while (Now() < end) {
      const int count = ::epoll_wait(epoll_, events, 256, 100);
      for (int i = 0; i < count; i++) Readable(queues_[events[i].data.u32]);
    }
  }

  uint64_t done() const { return took_.size(); }
  double Percentile(double part) {
    if (took_.empty()) return 0;
    auto at = took_.begin() + static_cast<ptrdiff_t>(part * static_cast<double>(took_.size() - 1));
    std::nth_element(took_.begin(), at, took_.end());
    return *at / 1e3;
  }

 private:
  void Read(Queue& queue, uint16_t cid) {
    CapsuleCmd capsule{};
    capsule.ch = {kCapsuleCmd, 0, sizeof capsule, 0, sizeof capsule};
    capsule.sqe.opcode = kRead;
    capsule.sqe.flags = 0x40;
    capsule.sqe.cid = cid;
    capsule.sqe.nsid = 1;
    capsule.sqe.sgl.length = kBlock;
    capsule.sqe.sgl.id = kSglCommandBuffer;
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    const uint64_t slba = (random_ >> 33) % (blocks_ / (kBlock >> kShift)) * (kBlock >> kShift);
    capsule.sqe.cdw10 = static_cast<uint32_t>(slba);
    capsule.sqe.cdw11 = static_cast<uint32_t>(slba >> 32);
    capsule.sqe.cdw12 = (kBlock >> kShift) - 1;
    queue.started[cid] = Now();
    const auto* bytes = reinterpret_cast<const uint8_t*>(&capsule);
    out_.insert(out_.end(), bytes, bytes + sizeof capsule);
  }

  void Send(const Queue& queue) {
    if (!out_.empty()) SendAll(queue.fd, out_.data(), out_.size());
    out_.clear();
  }

  void Readable(Queue& queue) {
    size_t have = queue.rest.size();
    memcpy(in_, queue.rest.data(), have);
    queue.rest.clear();
    const ssize_t got = ::recv(queue.fd, in_ + have, sizeof in_ - have, MSG_DONTWAIT);
    if (got == 0) Fail("closed by the target");
    if (got < 0 && errno != EAGAIN) Fail("recv");
    have += got > 0 ? static_cast<size_t>(got) : 0;
    size_t at = 0;
    while (at < have) {
      if (queue.skip > 0) {
        const auto some = static_cast<uint32_t>(std::min<size_t>(queue.skip, have - at));
        at += some;
        queue.skip -= some;
        continue;
      }
      if (have - at < sizeof(CapsuleResp)) break;
      CommonHeader ch;
      memcpy(&ch, in_ + at, sizeof ch);
      if (ch.type == kC2hData) {
        queue.skip = ch.plen - sizeof(Data);
      } else {
        CapsuleResp response;
        memcpy(&response, in_ + at, sizeof response);
        if (ch.type != kCapsuleResp || response.cqe.status != 0) Fail("a read has failed");
        took_.push_back(static_cast<float>(Now() - queue.started[response.cqe.cid]));
        Read(queue, response.cqe.cid);
      }
      at += sizeof(CapsuleResp);  // as long as the header of data
    }
    queue.rest.assign(in_ + at, in_ + have);
    Send(queue);
  }

  std::vector<Queue>& queues_;
  const uint32_t depth_;
  const uint64_t blocks_;
  int epoll_;
  uint64_t random_ = 1;
  std::vector<uint8_t> out_;
  std::vector<float> took_;
  uint8_t in_[512 << 10];
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  const pid_t target = atoi(argv[2]);
  const char* subnqn = argv[3];
  const auto port = static_cast<uint16_t>(atoi(argv[1]));
  const auto hosts = static_cast<uint32_t>(atoi(argv[4]));
  const uint32_t depth = std::min<uint32_t>(static_cast<uint32_t>(atoi(argv[5])), kMostDepth);
  const double seconds = atof(argv[6]);
  rlimit limit;
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);

  const uint64_t begun = Now();
  std::vector<Queue> admin(hosts), io(hosts);
  std::vector<uint16_t> cntlids(hosts);
  const auto each = [hosts](auto what) {
    for (uint32_t i = 0; i < hosts; i++) what(i);
  };
  each([&](uint32_t i) { Greet(admin[i].fd = Dial(port)); });
  each([&](uint32_t i) { Greeted(admin[i].fd), SendConnect(admin[i].fd, i, subnqn, 0, 0xffff); });
  each([&](uint32_t i) { cntlids[i] = static_cast<uint16_t>(Answer(admin[i].fd)), SendEnable(admin[i].fd); });
  each([&](uint32_t i) { Answer(admin[i].fd), Greet(io[i].fd = Dial(port)); });
  each([&](uint32_t i) { Greeted(io[i].fd), SendConnect(io[i].fd, i, subnqn, 1, cntlids[i]); });
  each([&](uint32_t i) { Answer(io[i].fd); });
  const double connected = static_cast<double>(Now() - begun) / 1e9;

  static Load* const load = new Load(io, depth, strtoull(argv[7], nullptr, 10) >> kShift);
  const uint64_t started = Now(), used = CpuOf(target);
  load->Run(seconds);
  const double cpu = static_cast<double>(CpuOf(target) - used);
  const double took = static_cast<double>(Now() - started) / 1e9;
  printf("{\"connected\":%.3f,\"reads\":%llu,\"seconds\":%.3f,\"cpu\":%.0f,\"p50\":%.1f,\"p999\":%.1f}\n", connected,
         static_cast<unsigned long long>(load->done()), took, cpu / static_cast<double>(std::max<uint64_t>(1, load->done())),
         load->Percentile(0.5), load->Percentile(0.999));
}
