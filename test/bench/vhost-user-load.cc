// A driver of virtio-blk over vhost-user, as a guest's would behave: indirect descriptors, EVENT_IDX, sleeping on the call
// eventfd. Reads 4 KiB blocks at random places of the disk and prints what that cost, as JSON: reads, seconds, CPU time of
// the back-end's process and of this one, latency.
//
//   vhost-user-load SOCKET BACK-END-PID DISK-BYTES DEPTH SECONDS
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

// Requests of docs/interop/vhost-user.rst.
enum Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetProtocolFeatures = 16,
  kSetVringEnable = 18
};
constexpr uint64_t kVersion1 = 1ull << 32, kProtocol = 1ull << 30, kEventIdx = 1ull << 29, kIndirect = 1ull << 28;
constexpr uint64_t kFlush = 1ull << 9;  // without it every write has to be durable
constexpr uint32_t kNum = 128, kBlock = 4096;
constexpr size_t kMemory = 4 << 20, kAvail = 0x1000, kUsed = 0x2000, kTables = 0x4000, kData = 0x100000;

[[noreturn]] void Fail(const char* what) {
  perror(what);
  exit(1);
}

int Check(int result, const char* what) {
  if (result < 0) Fail(what);
  return result;
}

int sock;

void Send(uint32_t request, const void* payload, uint32_t size, int fd = -1) {
  char message[12 + 64];
  const uint32_t header[3] = {request, 1, size};
  memcpy(message, header, sizeof header);
  if (size) memcpy(message + 12, payload, size);
  iovec part{message, 12 + size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr msg{};
  msg.msg_iov = &part;
  msg.msg_iovlen = 1;
  if (fd >= 0) {
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  if (sendmsg(sock, &msg, 0) != static_cast<ssize_t>(part.iov_len)) Fail("sendmsg");
}

uint64_t Ask(uint32_t request, const void* payload = nullptr, uint32_t size = 0) {
  Send(request, payload, size);
  struct {
    uint32_t header[3];
    uint64_t value;
  } __attribute__((packed)) answer;
  if (recv(sock, &answer, sizeof answer, MSG_WAITALL) != sizeof answer) Fail("recv");
  return answer.value;
}

uint64_t Clock(clockid_t id) {
  timespec t;
  Check(clock_gettime(id, &t), "clock_gettime");
  return static_cast<uint64_t>(t.tv_sec) * 1000000000 + static_cast<uint64_t>(t.tv_nsec);
}

struct Desc {
  uint64_t address;
  uint32_t size;
  uint16_t flags, next;
};
struct Header {
  uint32_t type, reserved;
  uint64_t sector;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const uint64_t blocks = strtoull(argv[3], nullptr, 10) / kBlock;
  const uint32_t depth = static_cast<uint32_t>(atoi(argv[4]));
  const double seconds = atof(argv[5]);
  if (depth < 1 || depth > kNum || blocks == 0) return 2;
  clockid_t peer_clock;
  if (clock_getcpuclockid(atoi(argv[2]), &peer_clock)) Fail("clock_getcpuclockid");

  sock = Check(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
  Check(connect(sock, reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");

  const int memfd = Check(memfd_create("load", MFD_CLOEXEC), "memfd_create");
  Check(ftruncate(memfd, kMemory), "ftruncate");
  auto* memory =
      static_cast<uint8_t*>(mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memfd, 0));
  if (memory == MAP_FAILED) Fail("mmap");
  const auto base = reinterpret_cast<uint64_t>(memory);
  // Non-blocking, as QEMU makes them.
  const int kick = Check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  const int call = Check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");

  const uint64_t wanted = kVersion1 | kProtocol | kEventIdx | kIndirect | kFlush;
  if ((Ask(kGetFeatures) & wanted) != wanted) return fprintf(stderr, "a feature is missing\n"), 1;
  Send(kSetOwner, nullptr, 0);
  const uint64_t no_protocol = 0;
  Send(kSetProtocolFeatures, &no_protocol, 8);
  Send(kSetFeatures, &wanted, 8);
  const struct {
    uint32_t count, padding;
    uint64_t gpa, size, uva, offset;
  } table{1, 0, 0, kMemory, base, 0};
  Send(kSetMemTable, &table, sizeof table, memfd);
  const uint32_t num[2] = {0, kNum}, start[2] = {0, 0}, enable[2] = {0, 1};
  Send(kSetVringNum, num, 8);
  Send(kSetVringBase, start, 8);
  const struct {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
  } ring{0, 0, base, base + kUsed, base + kAvail, 0};
  Send(kSetVringAddr, &ring, sizeof ring);
  const uint64_t queue = 0;
  Send(kSetVringCall, &queue, 8, call);
  Send(kSetVringKick, &queue, 8, kick);
  Send(kSetVringEnable, enable, 8);

  auto* desc = reinterpret_cast<Desc*>(memory);
  auto* avail = reinterpret_cast<uint16_t*>(memory + kAvail);  // flags, idx, ring, used_event
  auto* used = memory + kUsed;                                 // flags, idx, {id, len}…, avail_event
  auto avail_index = std::atomic_ref(avail[1]);
  auto used_event = std::atomic_ref(avail[2 + kNum]);
  auto used_index = std::atomic_ref(*reinterpret_cast<uint16_t*>(used + 2));
  auto avail_event = std::atomic_ref(*reinterpret_cast<uint16_t*>(used + 4 + 8 * kNum));
  auto* headers = reinterpret_cast<Header*>(memory + kTables + 64 * kNum);
  uint8_t* status = memory + kTables + 80 * kNum;
  for (uint32_t i = 0; i < depth; i++) {
    auto* part = reinterpret_cast<Desc*>(memory + kTables + 64 * i);
    part[0] = {kTables + 64 * kNum + 16 * i, 16, 1, 1};
    part[1] = {kData + kBlock * i, kBlock, 3, 2};
    part[2] = {kTables + 80 * kNum + i, 1, 2, 0};
    desc[i] = {kTables + 64 * i, 48, 4, 0};
  }

  std::vector<uint64_t> begun(depth);
  std::vector<uint32_t> latencies;
  latencies.reserve(1 << 20);
  uint64_t seed = 0x9e3779b97f4a7c15, reads = 0;
  uint16_t next = 0, kicked = 0, seen = 0;
  auto offer = [&](uint32_t slot, uint64_t now) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    headers[slot] = {0, 0, seed % blocks * (kBlock / 512)};
    status[slot] = 0xff;
    begun[slot] = now;
    avail[2 + next++ % kNum] = static_cast<uint16_t>(slot);
  };
  auto notify = [&] {
    avail_index.store(next, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint16_t event = avail_event.load(std::memory_order_relaxed);
    if (static_cast<uint16_t>(next - event - 1) < static_cast<uint16_t>(next - kicked)) {
      const uint64_t one = 1;
      if (write(kick, &one, 8) != 8) Fail("write");
    }
    kicked = next;
  };

  const uint64_t warm = 200000000;
  const uint64_t begin = Clock(CLOCK_MONOTONIC) + warm, end = begin + static_cast<uint64_t>(seconds * 1e9);
  uint64_t from = 0, peer = 0, own = 0, now = begin - warm;
  uint32_t flying = depth;
  for (uint32_t i = 0; i < depth; i++) offer(i, now);
  notify();
  while (flying > 0) {
    if (used_index.load(std::memory_order_acquire) == seen) {
      used_event.store(seen, std::memory_order_relaxed);
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (used_index.load(std::memory_order_acquire) == seen) {
        uint64_t count;
        pollfd poll{call, POLLIN, 0};
        if (::poll(&poll, 1, 5000) != 1 || read(call, &count, 8) != 8) Fail("call");
        continue;
      }
    }
    now = Clock(CLOCK_MONOTONIC);
    if (from == 0 && now >= begin) {
      from = now, reads = 0;
      latencies.clear();
      peer = Clock(peer_clock), own = Clock(CLOCK_PROCESS_CPUTIME_ID);
    }
    while (used_index.load(std::memory_order_acquire) != seen) {
      const uint32_t slot = *reinterpret_cast<uint32_t*>(used + 4 + 8 * (seen++ % kNum));
      if (slot >= depth || status[slot] != 0) return fprintf(stderr, "a read failed\n"), 1;
      reads++;
      if (latencies.size() < latencies.capacity()) latencies.push_back(static_cast<uint32_t>(now - begun[slot]));
      if (now < end)
        offer(slot, now);
      else
        flying--;
    }
    if (kicked != next) notify();
  }
  peer = Clock(peer_clock) - peer, own = Clock(CLOCK_PROCESS_CPUTIME_ID) - own;
  const double took = static_cast<double>(now - from) / 1e9;
  std::sort(latencies.begin(), latencies.end());
  const uint32_t vring[2] = {0, 0};
  Ask(kGetVringBase, vring, 8);
  printf("{\"reads\":%lu,\"seconds\":%.3f,\"backEndNs\":%.0f,\"driverNs\":%.0f,\"p50\":%.1f,\"p99\":%.1f}\n", reads, took,
         static_cast<double>(peer) / static_cast<double>(reads), static_cast<double>(own) / static_cast<double>(reads),
         latencies[latencies.size() / 2] / 1e3, latencies[latencies.size() * 99 / 100] / 1e3);
}
