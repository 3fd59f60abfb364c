// ring-fuzz SECONDS SEED: attacks split and packed rings, their in-flight regions and the dirty log with random memory,
// as a driver and a front-end can. For as long again, another thread changes the in-flight region meanwhile. Built with the sanitizers. What must hold: no access outside of the mappings, bounded
// chains, and a queue that ends with a reason or goes on.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <thread>

#include "common/error.h"
#include "vhost_user/virtqueue.h"

using namespace vioctl;
using namespace vioctl::vhost_user;

namespace {

constexpr uint64_t kGuest = 1 << 20;
std::mt19937_64 g_random;
uint64_t Below(uint64_t end) { return g_random() % end; }

int NewFile(size_t size) {
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) != 0) abort();
  return fd;
}

[[noreturn]] void Fail(const char* what) {
  fprintf(stderr, "ring-fuzz: %s\n", what);
  abort();
}

// Descriptors that are mostly sensible, so that the walk gets somewhere.
void Scribble(uint8_t* memory, const Virtqueue::Layout& layout, bool packed) {
  for (uint32_t i = 0; i < layout.num; i++) {
    uint8_t* at = memory + layout.desc + 16 * i;
    const uint64_t address = Below(8) ? Below(kGuest) & ~uint64_t{15} : g_random();
    const auto size = static_cast<uint32_t>(Below(6) ? Below(4096) & ~uint64_t{15} : g_random());
    auto flags = static_cast<uint16_t>(Below(8));
    if (packed) flags = static_cast<uint16_t>(flags | (Below(4) ? 1 << 7 : g_random() & 0x8080));
    const auto next = static_cast<uint16_t>(Below(10) ? Below(layout.num) : g_random());
    memcpy(at, &address, 8);
    memcpy(at + 8, &size, 4);
    memcpy(at + 12, packed ? &next : &flags, 2);
    memcpy(at + 14, packed ? &flags : &next, 2);
  }
  for (int i = 0; i < 64; i++) memory[Below(kGuest)] = static_cast<uint8_t>(g_random());
}

void Round(bool packed) {
  const int guest_fd = NewFile(kGuest), region_fd = NewFile(1 << 16), log_fd = NewFile(4096);
  Mapping guest = Mapping::Map(guest_fd, kGuest, PROT_READ | PROT_WRITE, MAP_SHARED);
  Mapping region = Mapping::Map(region_fd, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED);
  auto* memory = static_cast<uint8_t*>(guest.get());
  auto memory_table = std::make_shared<const GuestMemory>(std::vector<Region>{{0, kGuest, 0, 0}}, std::vector<int>{guest_fd});
  Virtqueue::Layout layout;
  layout.num = packed ? 1 + static_cast<uint32_t>(Below(64)) : 1u << Below(7);
  layout.desc = 0x1000;
  layout.avail = 0x3000;
  layout.used = 0x4000;
  layout.features = (packed ? kRingPacked : 0) | (Below(2) ? kIndirectDesc : 0) | (Below(2) ? kEventIdx : 0) | kLogAll;
  layout.base = packed ? 0x80008000u : static_cast<uint32_t>(Below(65536));
  layout.log = std::make_shared<const DirtyLog>(log_fd, 4096, 0);
  layout.log_used = true;
  layout.log_address = g_random();
  if (Below(4)) {
    auto* at = static_cast<uint16_t*>(region.get());
    for (int i = 0; i < 1 << 15; i++) at[i] = static_cast<uint16_t>(Below(3) ? Below(layout.num + 2) : g_random());
    if (Below(2)) at[4] = 1, at[5] = static_cast<uint16_t>(layout.num);
    layout.inflight = std::make_shared<const InflightRegion>(region_fd, 1 << 16, 0, 1, 1024);
  }
  for (uint64_t i = 0; i < kGuest; i += 8) *reinterpret_cast<uint64_t*>(memory + i) = g_random();
  Scribble(memory, layout, packed);
  std::unique_ptr<Virtqueue> queue;
  try {
    queue = Virtqueue::Make(memory_table, layout, 128);
  } catch (const SysError&) {
    ::close(guest_fd), ::close(region_fd), ::close(log_fd);
    return;
  }
  std::vector<Chain> held;
  for (int step = 0; step < 400; step++) {
    if (!Below(4)) Scribble(memory, layout, packed);
    if (!packed) {
      uint16_t index;
      memcpy(&index, memory + layout.avail + 2, 2);
      index = Below(20) ? static_cast<uint16_t>(queue->base() + Below(layout.num + 1)) : static_cast<uint16_t>(g_random());
      memcpy(memory + layout.avail + 2, &index, 2);
      for (uint32_t i = 0; i < layout.num; i++) {
        const auto head = static_cast<uint16_t>(Below(30) ? Below(layout.num) : g_random());
        memcpy(memory + layout.avail + 4 + 2 * i, &head, 2);
      }
    }
    Chain chain;
    const Pop pop = queue->Next(chain);
    if (pop == Pop::kBroken) {
      if (!queue->error()) Fail("broken without a reason");
      break;
    }
    if (pop == Pop::kChain) {
      uint64_t bytes = 0;
      if (chain.in.size() + chain.out.size() > 2 * std::max(layout.num, 128u)) Fail("a chain is not bounded");
      for (const auto* parts : {&chain.in, &chain.out})
        for (const iovec& part : *parts) {
          uint64_t address;
          if (!memory_table->GuestAddress(part.iov_base, &address) || address + part.iov_len > kGuest) Fail("a buffer outside");
          bytes += part.iov_len;
        }
      if (bytes != chain.in_size + chain.out_size) Fail("the sizes do not add up");
      if (!Below(5))
        queue->Undo(chain);
      else if (held.size() < 256)
        held.push_back(std::move(chain));
    }
    while (!held.empty() && Below(3)) {
      for (const iovec& part : held.back().in) queue->LogWrite(*memory_table, part.iov_base, part.iov_len);
      queue->Put(held.back(), static_cast<uint32_t>(held.back().in_size));
      held.pop_back();
    }
    queue->ShouldNotify();
    queue->WantKicks(Below(2));
  }
  ::close(guest_fd), ::close(region_fd), ::close(log_fd);
}

// The front-end's side of a race: values of the region change to and fro between right and wrong ones.
void Toggle(uint8_t* region, bool packed, uint16_t num, const std::atomic<bool>& stop) {
  std::mt19937 random(1);
  const uint32_t header = packed ? 32 : 16, entry = packed ? 32 : 16;
  while (!stop) {
    // The header's 16-bit words behind version and size, or one of an entry: next, last or num.
    const uint32_t field = random() % (packed ? 4 : 2);
    const uint32_t inside = header + entry * (random() % num) + (packed ? 2 + 2 * (random() % 3) : 6);
    auto* at = reinterpret_cast<uint16_t*>(region + (random() % 2 ? 12 + 2 * field : inside));
    const auto right = static_cast<uint16_t>(random() % num), wrong = static_cast<uint16_t>(random() | 0x4000);
    for (int i = 0; i < 500; i++) __atomic_store_n(at, i % 2 ? right : wrong, __ATOMIC_RELAXED);
    region[header + entry * (random() % num)] = random() % 2;  // in flight or not
  }
}

// Starts a ring on a region that changes meanwhile, serves it, and starts it again.
uint64_t Race(bool packed, time_t end) {
  constexpr uint16_t kNum = 16;
  const int guest_fd = NewFile(kGuest), region_fd = NewFile(4096);
  Mapping guest = Mapping::Map(guest_fd, kGuest, PROT_READ | PROT_WRITE, MAP_SHARED);
  Mapping region = Mapping::Map(region_fd, 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
  auto* memory = static_cast<uint8_t*>(guest.get());
  auto memory_table = std::make_shared<const GuestMemory>(std::vector<Region>{{0, kGuest, 0, 0}}, std::vector<int>{guest_fd});
  Virtqueue::Layout layout;
  layout.num = kNum;
  layout.desc = 0x1000, layout.avail = 0x3000, layout.used = 0x4000;
  layout.features = packed ? kRingPacked : 0;
  layout.base = packed ? 0x80008000u : 0;
  // The kernel maps downwards: whatever lies behind the region's pages is out of reach.
  constexpr size_t kFence = 4 << 20;
  void* fence = ::mmap(nullptr, kFence, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (fence == MAP_FAILED) abort();
  layout.inflight = std::make_shared<const InflightRegion>(region_fd, 4096, 0, 1, kNum);
  std::atomic<bool> stop{false};
  std::thread front_end([&] { Toggle(static_cast<uint8_t*>(region.get()), packed, kNum, stop); });
  uint64_t starts = 0;
  while (starts < 64 || ::time(nullptr) < end) {
    starts++;
    for (uint16_t i = 0; i < kNum; i++) {  // one buffer each, or a chain of two
      const uint64_t address = 0x8000;
      const uint32_t size = 64;
      const uint16_t next = i + 1, flags = static_cast<uint16_t>((i % 2 ? 0 : kDescNext) | (packed ? 1 << 7 : 0));
      uint8_t* at = memory + layout.desc + 16 * i;
      memcpy(at, &address, 8), memcpy(at + 8, &size, 4);
      memcpy(at + 12, packed ? &next : &flags, 2), memcpy(at + 14, packed ? &flags : &next, 2);
      const uint16_t head = i & ~1u;
      if (!packed) memcpy(memory + layout.avail + 4 + 2 * i, &head, 2);
    }
    auto queue = Virtqueue::Make(memory_table, layout, 128);
    const auto available = static_cast<uint16_t>(queue->base() + kNum / 2);
    if (!packed) memcpy(memory + layout.avail + 2, &available, 2);
    Chain chain;
    for (int i = 0; i < 2 * kNum && queue->Next(chain) == Pop::kChain; i++) {
      if (chain.entry >= kNum || (!packed && chain.head >= kNum)) Fail("an entry beyond the queue");
      if (i % 4 == 3)
        queue->Undo(chain);
      else
        queue->Put(chain, 0);
      const uint32_t base = queue->base();
      if (packed && ((base & 0x7fff) >= kNum || (base >> 16 & 0x7fff) >= kNum)) Fail("a place beyond the ring");
    }
  }
  stop = true;
  front_end.join();
  ::munmap(fence, kFence);
  ::close(guest_fd), ::close(region_fd);
  return starts;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  g_random.seed(strtoull(argv[2], nullptr, 0));
  const int seconds = atoi(argv[1]);
  const time_t end = ::time(nullptr) + seconds;
  uint64_t rounds = 0;
  for (; rounds < 64 || ::time(nullptr) < end; rounds++) Round(rounds % 2);
  uint64_t starts = 0;
  for (int i = 0; i < 2; i++) starts += Race(i % 2, ::time(nullptr) + (seconds + 1) / 2);
  printf("%llu rounds, %llu starts in a race\n", static_cast<unsigned long long>(rounds),
         static_cast<unsigned long long>(starts));
}
