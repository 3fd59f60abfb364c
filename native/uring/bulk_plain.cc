#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "uring/bulk_threads.h"
#include "uring/holes.h"

namespace vioctl::uring {

int32_t SyncFile(const char* path, bool data) {
  Fd fd = os::TryOpen(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
  if (!fd.valid() && errno == EACCES) {  // fsync(2) needs no right to read
    fd = os::TryOpen(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
    if (!fd.valid() && errno == EISDIR) errno = EACCES;
  }
  if (!fd.valid()) return -errno;
  int result;
  do result = data ? ::fdatasync(fd.get()) : ::fsync(fd.get());
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : 0;
}

namespace {

constexpr size_t kChunk = 256 << 10;  // read at once; the turns of large files are that long
constexpr size_t kOpenFiles = 8;      // large files of a thread that take turns

}  // namespace

bool MayWait(const char* path) {
  struct stat stat;
  if (::stat(path, &stat) < 0) return false;  // opening it will say why
  return !S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode) && !S_ISBLK(stat.st_mode);
}

class PlainThread final : public BulkThread {
 public:
  explicit PlainThread(Bulk& bulk) : bulk_(bulk) {
    if (bulk.options_.work == BulkWork::kSum) buffer_.reset(new uint8_t[kChunk + kSlack]);
  }
  void Start() override {
    thread_ = os::StartThread([this] {
      ::pthread_setname_np(::pthread_self(), "plain-bulk");
      if (bulk_.options_.work == BulkWork::kSum)
        Sum();
      else
        Sync();
    });
  }
  void Wake(bool) override { bulk_.more_.notify_one(); }  // each thread is told, so each that sleeps wakes
  bool Join() override {
    if (thread_.joinable()) thread_.join();
    return true;
  }

 private:
  // A file that did not end in its first chunk.
  struct Open {
    Fd fd;
    Bulk::Name name;
    uint64_t total = 0;
    uint64_t least = 0;  // bytes of a regular file when it was opened: it has shrunk if fewer can be read
    bool sparse = false;
    std::unique_ptr<Digest> digest;
  };

  void Sync() {
    for (Bulk::Name name; bulk_.Await(name);)
      Ended(name, SyncFile(name.path, bulk_.options_.work == BulkWork::kDataSync), 0, nullptr);
  }

  // A new file and a chunk of a large one take turns, so that small files do not wait for large ones.
  void Sum() {
    std::vector<Open> open;
    for (size_t turn = 0; !bulk_.stopping_; turn++) {
      Bulk::Name name;
      if (open.empty() && !bulk_.Await(name)) return;
      if (name.path != nullptr || (open.size() < kOpenFiles && bulk_.Names(&name, 1) == 1)) {
        Open file = Begin(std::move(name));
        if (file.fd.valid() && !Step(file)) open.push_back(std::move(file));
      }
      if (open.empty()) continue;
      Open& next = open[turn % open.size()];
      if (!Step(next)) continue;
      std::swap(next, open.back());
      spare_.push_back(std::move(open.back().digest));
      open.pop_back();
    }
  }

  // Opens a file; one without a descriptor has ended.
  Open Begin(Bulk::Name name) {
    Open file;
    if (MayWait(name.path)) {
      Ended(name, kElsewhere, 0, nullptr);
      return file;
    }
    file.fd = os::TryOpen(name.path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    struct stat stat;
    if (!file.fd.valid() || ::fstat(file.fd.get(), &stat) < 0) {
      Ended(name, -errno, 0, nullptr);
      file.fd.Reset();
      return file;
    }
    if (S_ISREG(stat.st_mode)) {
      file.least = static_cast<uint64_t>(stat.st_size);
      file.sparse = IsSparse(file.least, static_cast<uint64_t>(stat.st_blocks));
    }
    file.name = std::move(name);
    if (spare_.empty()) {
      file.digest = std::make_unique<Digest>(*bulk_.options_.algorithm);
    } else {
      file.digest = std::move(spare_.back());
      spare_.pop_back();
    }
    file.digest->Start();
    return file;
  }

  // Reads and sums one chunk. Returns whether the file has ended; then its result is out.
  bool Step(Open& file) {
    if (const size_t hole = file.sparse ? HoleAt(file.fd.get(), file.total) : 0; hole > 0) {
      file.digest->Update(Zeros(), hole);
      file.total += hole;
      return false;
    }
    if (file.sparse) ::lseek(file.fd.get(), static_cast<off_t>(file.total), SEEK_SET);
    // Reads the next piece and adds it to the sum.
    const auto more = [&] {
      ssize_t size;
      do size = ::read(file.fd.get(), buffer_.get(), kChunk);
      while (size < 0 && errno == EINTR);
      if (size > 0) {
        file.digest->Update(buffer_.get(), static_cast<size_t>(size));
        file.total += static_cast<uint64_t>(size);
        bytes.fetch_add(static_cast<uint64_t>(size), std::memory_order_relaxed);
      }
      return size;
    };
    ssize_t size = more();
    if (size > 0) {
      if (file.total != file.least || file.total >= kChunk) return false;
      // A small file that is as long as it said: one read is enough, unless it grew meanwhile.
      size = more();
      if (size > 0) return false;
    }
    int32_t error = size < 0 ? -errno : 0;
    // What ends in its first chunk was read at one moment.
    if (error == 0 && file.total >= kChunk && file.total < file.least) error = kTruncated;
    Ended(file.name, error, file.total, file.digest.get());
    return true;
  }

  void Ended(const Bulk::Name& name, int32_t error, uint64_t size, Digest* digest) {
    BulkResult& result = results_.emplace_back();
    result.number = name.number;
    result.error = error;
    result.size = size;
    if (error == 0 && digest && !digest->Finish(result.digest)) result.error = -ENOMEM;
    bulk_.Deliver(results_);
  }

  Bulk& bulk_;
  std::thread thread_;
  std::unique_ptr<uint8_t[]> buffer_;
  std::vector<std::unique_ptr<Digest>> spare_;
  std::vector<BulkResult> results_;
};

std::unique_ptr<BulkThread> MakePlainThread(Bulk& bulk) { return std::make_unique<PlainThread>(bulk); }

}  // namespace vioctl::uring
