#include "os/secrets.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "common/error.h"
#include "os/mapping.h"

namespace vioctl::os {
namespace {

constexpr size_t kBlock = 64 << 10;  // bytes mapped at a time: a whole number of pages on every machine
constexpr size_t kMaxBlocks = 64;    // of all keys of all hosts of a process
std::mutex mutex;
std::vector<uint8_t*> places;
size_t blocks = 0;

void AddBlock() {
  if (blocks >= kMaxBlocks) throw SysError(ENOMEM, "secret", "too many");
  // copies that lie elsewhere, those of OpenSSL for example: no core dump, and only root may trace or look into us
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) throw SysError(errno, "prctl");
  Mapping block = Mapping::Map(-1, kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (::madvise(block.get(), kBlock, MADV_DONTDUMP) != 0) throw SysError(errno, "madvise");
  ::madvise(block.get(), kBlock, MADV_DONTFORK);
  ::mlock(block.get(), kBlock);  // RLIMIT_MEMLOCK may forbid it: then only swap could see it
  auto* at = static_cast<uint8_t*>(block.Release());
  blocks++;
  places.reserve(blocks * (kBlock / kMaxSecret));
  for (size_t i = kBlock / kMaxSecret; i-- > 0;) places.push_back(at + i * kMaxSecret);
}

}  // namespace

uint8_t* TakeSecret(size_t size) {
  if (size > kMaxSecret) throw SysError(E2BIG, "secret");
  std::lock_guard lock(mutex);
  if (places.empty()) AddBlock();
  uint8_t* place = places.back();
  places.pop_back();
  return place;
}

void GiveSecret(uint8_t* place) noexcept {
  Wipe({place, kMaxSecret});
  std::lock_guard lock(mutex);
  places.push_back(place);  // has room: see AddBlock
}

void Wipe(std::span<uint8_t> bytes) noexcept {
  if (!bytes.empty()) ::explicit_bzero(bytes.data(), bytes.size());
}

}  // namespace vioctl::os
