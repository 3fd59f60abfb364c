// Holds a source against the interface of native/storage/store.h. usage: store-conform KIND SEED PATH, where KIND is
// ram, file, direct or readonly. PATH has 8 MiB of zeroes and belongs to this program. Prints a line for each thing that
// is wrong and ends with 1, or with "ok".
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/error.h"
#include "storage/durability.h"
#include "storage/store.h"

using vioctl::storage::Store;

namespace {

constexpr uint64_t kSize = 8 << 20, kBlock = 4096;
constexpr uint64_t kAreas = 4;  // threads, each with a part of the disk of its own
int wrong = 0;

void Expect(bool good, const std::string& what) {
  if (good) return;
  wrong++;
  printf("wrong: %s\n", what.c_str());
}

// A buffer in pieces of odd sizes at odd addresses.
struct Pieces {
  std::vector<uint8_t> bytes;
  std::vector<iovec> parts;
  Pieces(size_t size, std::mt19937_64& random) : bytes(size + 1) {
    for (size_t at = 0; at < size;) {
      const size_t part = std::min<size_t>(size - at, parts.size() > 20 ? size : 1 + random() % 9000);
      parts.push_back({bytes.data() + 1 + at, part});
      at += part;
    }
  }
  uint8_t* data() { return bytes.data() + 1; }
  int count() const { return static_cast<int>(parts.size()); }
};

// Random operations on one part of the disk against a copy in memory.
void Model(Store& store, uint64_t seed, uint64_t base, uint64_t size, int rounds, std::atomic<bool>& failed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> model(size);
  for (int round = 0; round < rounds && !failed; round++) {
    const uint64_t at = random() % (size / kBlock) * kBlock;
    const uint64_t length = std::min<uint64_t>(size - at, (1 + random() % 32) * kBlock);
    Pieces buffer(length, random);
    int err = 0;
    switch (random() % 8) {
      case 0:
      case 1:
        for (uint64_t i = 0; i < length; i++) buffer.data()[i] = static_cast<uint8_t>(random());
        [[fallthrough]];
      case 2:  // zeroes: a store may find them
        err = store.Write(buffer.parts.data(), buffer.count(), base + at, random() % 8 == 0);
        memcpy(model.data() + at, buffer.data(), length);
        break;
      case 3:
        err = store.Zero(base + at, length, random() % 2 == 0);
        memset(model.data() + at, 0, length);
        break;
      case 4: {
        const std::vector<uint8_t> before(model.begin() + static_cast<ptrdiff_t>(at),
                                          model.begin() + static_cast<ptrdiff_t>(at + length));
        err = store.Discard(base + at, length);
        if (err == 0) err = store.Read(buffer.parts.data(), buffer.count(), base + at, false);
        // Zeroes or the old data, block by block.
        for (uint64_t i = 0; err == 0 && i < length; i += kBlock) {
          const bool old = memcmp(buffer.data() + i, before.data() + i, kBlock) == 0;
          if (!old && !std::all_of(buffer.data() + i, buffer.data() + i + kBlock, [](uint8_t b) { return b == 0; }))
            err = EBADMSG;
        }
        memcpy(model.data() + at, buffer.data(), length);
        break;
      }
      case 5:
        err = store.Flush();
        break;
      default: {
        const bool nowait = store.CanTry() && random() % 2 == 0;
        err = store.Read(buffer.parts.data(), buffer.count(), base + at, nowait);
        if (nowait && err == EAGAIN) err = store.Read(buffer.parts.data(), buffer.count(), base + at, false);
        if (err == 0 && memcmp(buffer.data(), model.data() + at, length) != 0) err = EBADMSG;
      }
    }
    if (err != 0) {
      failed = true;
      printf("wrong: round %d of seed %llu at %llu+%llu: %s\n", round, static_cast<unsigned long long>(seed),
             static_cast<unsigned long long>(base + at), static_cast<unsigned long long>(length),
             vioctl::ErrnoName(err).c_str());
    }
  }
  std::vector<uint8_t> end(size);
  if (!failed && (store.Read(end.data(), size, base) != 0 || end != model)) {
    failed = true;
    printf("wrong: the contents at the end of seed %llu\n", static_cast<unsigned long long>(seed));
  }
}

// Requests of more than what is moved at a time, at odd addresses; a read may begin and end anywhere.
void Large(Store& store, uint64_t seed) {
  std::mt19937_64 random(seed);
  constexpr uint64_t kFrom = kBlock, kLength = (3 << 20) + 5 * kBlock;
  Pieces out(kLength, random);
  for (uint64_t i = 0; i < kLength; i++) out.data()[i] = static_cast<uint8_t>(random());
  Expect(store.Write(out.parts.data(), out.count(), kFrom, false) == 0, "a large write");
  for (const uint64_t skip : {uint64_t{0}, uint64_t{777}, kBlock, uint64_t{(1 << 20) - 1}}) {
    for (const uint64_t length : {kLength - skip, kLength - skip - 333, uint64_t{1 << 20}, uint64_t{1}}) {
      Pieces in(length, random);
      Expect(store.Read(in.parts.data(), in.count(), kFrom + skip, false) == 0, "a large read");
      Expect(memcmp(in.data(), out.data() + skip, length) == 0, "the contents of a large read");
    }
  }
}

void ReadOnly(Store& store) {
  char block[kBlock] = {};
  Expect(store.readonly(), "readonly() of a source that was opened so");
  Expect(store.Read(block, sizeof block, 0) == 0, "a read");
  Expect(store.Write(block, sizeof block, 0) != 0, "a write is refused");
  Expect(store.Flush() == 0, "a flush has nothing to do");
}

// What a file that is cut below the store answers.
void Truncated(Store& store, const std::string& path) {
  char block[kBlock];
  Expect(::truncate(path.c_str(), kSize / 2) == 0, "truncate");
  Expect(store.Read(block, sizeof block, kSize - kBlock) == EIO, "a read behind the new end is EIO");
  Expect(store.Read(block, sizeof block, kSize / 2 - kBlock) == 0, "a read before it is fine");
  Expect(store.size() == kSize && store.Refresh() == kSize / 2 && store.size() == kSize / 2,
         "the size changes when it is looked at");
  memset(block, 0, sizeof block);
  Expect(store.Write(block, sizeof block, kSize - kBlock) == 0, "a write of zeroes behind the end");
  struct stat st;
  Expect(::stat(path.c_str(), &st) == 0 && st.st_size == static_cast<off_t>(kSize), "is no hole: it extends the file");
  Expect(store.Refresh() == kSize, "which is seen as well");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return fprintf(stderr, "usage: store-conform ram|file|direct|readonly SEED PATH\n"), 2;
  const std::string kind = argv[1], path = argv[3];
  const uint64_t seed = std::stoull(argv[2]);
  vioctl::storage::FileOptions options;
  options.readonly = kind == "readonly";
  options.direct = kind == "direct";
  try {
    const auto store = kind == "ram" ? vioctl::storage::OpenRam(kSize) : vioctl::storage::OpenFile(path, options);
    Expect(store->size() == kSize, "size()");
    Expect(store->sync_error() == 0, "no sync has failed yet");
    for (const int err : {EBUSY, ENOSPC, EOPNOTSUPP})  // a claimed device, a full one, one that cannot
      Expect(!vioctl::storage::MayLoseData(err), vioctl::ErrnoName(err) + " of a refused operation loses nothing");
    Expect(vioctl::storage::MayLoseData(EIO), "EIO may lose data");
    const auto geometry = store->geometry();
    Expect(geometry.logical >= 512 && geometry.physical >= geometry.logical, "geometry()");
    if (kind == "readonly") {
      ReadOnly(*store);
    } else {
      std::atomic<bool> failed{false};
      std::vector<std::thread> threads;
      for (uint64_t i = 0; i < kAreas; i++)
        threads.emplace_back(
            [&, i] { Model(*store, seed * kAreas + i, i * kSize / kAreas, kSize / kAreas, 400, failed); });
      for (auto& thread : threads) thread.join();
      wrong += failed ? 1 : 0;
      if (!failed) Large(*store, seed);
      struct stat st;
      if (!failed && kind == "file" && ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode)) Truncated(*store, path);
    }
  } catch (const std::exception& error) {
    Expect(false, error.what());
  }
  if (wrong == 0) printf("ok\n");
  return wrong == 0 ? 0 : 1;
}
