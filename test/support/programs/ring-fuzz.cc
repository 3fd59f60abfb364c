// ring-fuzz SECONDS SEED: attacks split and packed rings, their in-flight regions and the dirty log with random memory,
// as a driver and a front-end can. Built with the sanitizers. What must hold: no access outside of the mappings, bounded
// chains, and a queue that ends with a reason or goes on.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>

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

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  g_random.seed(strtoull(argv[2], nullptr, 0));
  const time_t end = ::time(nullptr) + atoi(argv[1]);
  uint64_t rounds = 0;
  for (; rounds < 64 || ::time(nullptr) < end; rounds++) Round(rounds % 2);
  printf("%llu rounds\n", static_cast<unsigned long long>(rounds));
}
