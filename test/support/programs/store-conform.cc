// Holds a source against the interface of native/storage/store.h. usage: store-conform KIND SEED PATH, where KIND is
// ram, file, direct, readonly, nbd (PATH is a URI then), rbd and rbd-readonly (PATH is CONF:POOL/IMAGE[@SNAPSHOT] then),
// or nvme, nvme-digests and nvme-readonly (PATH is PORT/NQN of a target on loopback then, whose namespace 1 is used).
// PATH has 8 MiB of zeroes and belongs to this program. Prints
// a line for each thing that is wrong and ends with 1, or with "ok". ROUNDS: random operations of each thread.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <random>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "common/error.h"
#include "nvme/host/source.h"
#include "storage/durability.h"
#include "storage/io.h"
#include "storage/remote/nbd.h"
#include "storage/remote/rbd.h"
#include "storage/store.h"

using vioctl::storage::Executor;
using vioctl::storage::Io;
using vioctl::storage::Op;
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

// A request that is not waited for by whoever does it.
struct Asked : Io {
  std::binary_semaphore ended{0};
  explicit Asked(Store& of, Op what) {
    op = what;
    store = &of;
    done = [](Io* io) { static_cast<Asked*>(io)->ended.release(); };
  }
  // Starts it and waits here.
  int Result() {
    std::vector<vioctl::storage::Job*> batch;
    Start(Executor::Shared(), batch);
    if (!batch.empty()) Executor::Shared().Submit(batch);
    ended.acquire();
    return result;
  }
};

// The two ways to ask: on this thread, and of the executor.
struct Way {
  Store& store;
  bool async;

  int Data(Op op, Pieces& buffer, uint64_t offset, bool durable = false) {
    if (async) {
      Asked asked(store, op);
      asked.parts = buffer.parts.data();
      asked.count = buffer.count();
      asked.offset = offset;
      asked.durable = durable;
      return asked.Result();
    }
    if (op == Op::kWrite) return store.Write(buffer.parts.data(), buffer.count(), offset, durable);
    if (op == Op::kCompare) return store.Compare(buffer.parts.data(), buffer.count(), offset);
    return store.Read(buffer.parts.data(), buffer.count(), offset, false);
  }
  int Range(Op op, uint64_t offset, uint64_t length, bool deallocate = false) {
    if (async) {
      Asked asked(store, op);
      asked.offset = offset;
      asked.length = length;
      asked.deallocate = deallocate;
      return asked.Result();
    }
    return op == Op::kZero ? store.Zero(offset, length, deallocate) : store.Discard(offset, length);
  }
  int Flush() { return async ? Asked(store, Op::kFlush).Result() : store.Flush(); }
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
    Way way{store, random() % 2 == 0};
    switch (random() % 9) {
      case 0:
      case 1:
        for (uint64_t i = 0; i < length; i++) buffer.data()[i] = static_cast<uint8_t>(random());
        [[fallthrough]];
      case 2:  // zeroes: a store may find them
        err = way.Data(Op::kWrite, buffer, base + at, random() % 8 == 0);
        memcpy(model.data() + at, buffer.data(), length);
        break;
      case 3:
        err = way.Range(Op::kZero, base + at, length, random() % 2 == 0);
        memset(model.data() + at, 0, length);
        break;
      case 4: {
        const std::vector<uint8_t> before(model.begin() + static_cast<ptrdiff_t>(at),
                                          model.begin() + static_cast<ptrdiff_t>(at + length));
        err = way.Range(Op::kDiscard, base + at, length);
        if (err == 0) err = way.Data(Op::kRead, buffer, base + at);
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
        err = way.Flush();
        break;
      case 6: {
        memcpy(buffer.data(), model.data() + at, length);
        err = way.Data(Op::kCompare, buffer, base + at);
        buffer.data()[random() % length] ^= 1;
        if (err != 0) break;
        err = way.Data(Op::kCompare, buffer, base + at);
        err = err == Store::kDiffers ? 0 : err == 0 ? EBADMSG : err;
        break;
      }
      default: {
        const bool nowait = store.CanTry() && random() % 2 == 0;
        err = nowait ? store.Read(buffer.parts.data(), buffer.count(), base + at, true)
                     : way.Data(Op::kRead, buffer, base + at);
        if (nowait && err == EAGAIN) err = way.Data(Op::kRead, buffer, base + at);
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

// Many at once, of one thread: each is told of once, and durable writes share their syncs.
void Many(Store& store, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::deque<Asked> asked;
  std::deque<Pieces> buffers;
  std::vector<vioctl::storage::Job*> batch;
  for (uint64_t i = 0; i < 64; i++) {
    buffers.emplace_back(kBlock, random);
    memset(buffers.back().data(), static_cast<int>(i) + 1, kBlock);
    Asked& one = asked.emplace_back(store, i % 8 == 7 ? Op::kFlush : Op::kWrite);
    one.parts = buffers.back().parts.data();
    one.count = buffers.back().count();
    one.offset = i * kBlock;
    one.durable = i % 4 == 1;
    one.Start(Executor::Shared(), batch);
  }
  Executor::Shared().Submit(batch);
  for (Asked& one : asked) {
    one.ended.acquire();
    Expect(one.result == 0, "one of many requests");
    Expect(!one.ended.try_acquire(), "is told of once");
  }
  for (uint64_t i = 0; i < 64; i++)
    if (i % 8 != 7) Expect(Way{store, true}.Data(Op::kCompare, buffers[i], i * kBlock) == 0, "the data of many writes");
}

void ReadOnly(Store& store) {
  char block[kBlock] = {};
  Expect(store.readonly(), "readonly() of a source that was opened so");
  Expect(store.Read(block, sizeof block, 0) == 0, "a read");
  Expect(store.Write(block, sizeof block, 0) != 0, "a write is refused");
  Expect(store.Flush() == 0, "a flush has nothing to do");
  Expect(Asked(store, Op::kFlush).Result() == 0, "nor has one of the executor");
  for (const Op op : {Op::kZero, Op::kDiscard}) Expect(Way{store, true}.Range(op, 0, kBlock) == EROFS, "no changes");
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

std::shared_ptr<Store> OpenNvme(const std::string& kind, const std::string& path) {
  vioctl::nvme::host::SourceOptions options;
  const size_t slash = path.find('/');
  options.addresses = {{"127.0.0.1", static_cast<uint16_t>(std::stoi(path.substr(0, slash)))}};
  options.subnqn = path.substr(slash + 1);
  options.hostnqn = "nqn.2014-08.org.nvmexpress:conform";
  options.hostid.fill(7);
  options.nsid = 1;
  options.queues = kind == "nvme-digests" ? 3 : 1;
  options.header_digest = options.data_digest = kind == "nvme-digests";
  options.unmap = true;
  return vioctl::nvme::host::OpenSource(options);
}

std::shared_ptr<Store> OpenImage(const std::string& path) {
  vioctl::storage::RbdOptions options;
  const size_t colon = path.rfind(':'), slash = path.rfind('/'), snapshot = path.find('@', slash);
  options.conf = path.substr(0, colon);
  options.pool = path.substr(colon + 1, slash - colon - 1);
  options.image = path.substr(slash + 1, snapshot - slash - 1);
  if (snapshot != std::string::npos) options.snapshot = path.substr(snapshot + 1);
  options.zero = vioctl::storage::ZeroMode::kUnmap;
  return vioctl::storage::OpenRbd(options);
}

std::shared_ptr<Store> Open(const std::string& kind, const std::string& path) {
  if (kind == "ram") return vioctl::storage::OpenRam(kSize);
  if (kind.starts_with("nvme")) return OpenNvme(kind, path);
  if (kind.starts_with("rbd")) return OpenImage(path);
  if (kind == "nbd") {
    vioctl::storage::NbdOptions options;
    options.uri = path;
    options.zero = vioctl::storage::ZeroMode::kUnmap;
    return vioctl::storage::OpenNbd(options);
  }
  vioctl::storage::FileOptions options;
  options.readonly = kind == "readonly";
  options.direct = kind == "direct";
  return vioctl::storage::OpenFile(path, options);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return fprintf(stderr, "usage: store-conform KIND SEED PATH [ROUNDS]\n"), 2;
  const std::string kind = argv[1], path = argv[3];
  const uint64_t seed = std::stoull(argv[2]);
  const int rounds = argc > 4 ? std::stoi(argv[4]) : 400;
  try {
    const auto store = Open(kind, path);
    Expect(store->size() == kSize, "size()");
    Expect(store->sync_error() == 0, "no sync has failed yet");
    for (const int err : {EBUSY, ENOSPC, EOPNOTSUPP})  // a claimed device, a full one, one that cannot
      Expect(!vioctl::storage::MayLoseData(err), vioctl::ErrnoName(err) + " of a refused operation loses nothing");
    Expect(vioctl::storage::MayLoseData(EIO), "EIO may lose data");
    const auto geometry = store->geometry();
    Expect(geometry.logical >= 512 && geometry.physical >= geometry.logical, "geometry()");
    if (kind.ends_with("readonly")) {
      ReadOnly(*store);
    } else {
      std::atomic<bool> failed{false};
      std::vector<std::thread> threads;
      for (uint64_t i = 0; i < kAreas; i++)
        threads.emplace_back(
            [&, i] { Model(*store, seed * kAreas + i, i * kSize / kAreas, kSize / kAreas, rounds, failed); });
      std::atomic<bool> ended{false}, resized{false};
      std::thread watch([&] {  // as servers do once a second
        while (!ended) {
          if (store->Refresh() != kSize) resized = true;
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      });
      for (auto& thread : threads) thread.join();
      ended = true;
      watch.join();
      Expect(!resized, "Refresh() while requests are under way");
      wrong += failed ? 1 : 0;
      if (!failed) Large(*store, seed);
      if (!failed) Many(*store, seed);
      struct stat st;
      if (!failed && kind == "file" && ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode)) Truncated(*store, path);
    }
  } catch (const std::exception& error) {
    Expect(false, error.what());
  }
  if (wrong == 0) printf("ok\n");
  return wrong == 0 ? 0 : 1;
}
