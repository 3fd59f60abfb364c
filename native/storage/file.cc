#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <string_view>
#include <vector>

#include "common/error.h"
#include "os/fd.h"
#include "storage/direct.h"
#include "storage/farewell.h"
#include "storage/lock.h"
#include "storage/memory/view.h"
#include "storage/store.h"

namespace vioctl::storage {
namespace {

constexpr long kTmpfsMagic = 0x01021994, kFuseMagic = 0x65735546;  // linux/magic.h
// File systems whose close(2) asks a server, which may not answer: NFS, Ceph, CIFS, SMB 2 (linux/magic.h), FUSE.
constexpr long kAsking[] = {0x6969, 0x00c36400, 0xff534d42, 0xfe534d42, kFuseMagic};
// File systems that take writes past the page cache at the same time: ext4, XFS (FOP_DIO_PARALLEL_WRITE, Linux 6.10).
constexpr long kParallel[] = {0xef53, 0x58465342};
// File systems of local disks whose page cache is mapped as it is: ext4, XFS, Btrfs.
constexpr long kMapped[] = {0xef53, 0x58465342, 0x9123683e};
constexpr int kClaimTries = 300;     // kernels before 6.2 let go of a file of a ring a second after it was replaced
constexpr int kParts = 1024;         // of a range of zeroes, with holes between them, that are looked for
constexpr size_t kZeroes = 1 << 20;  // bytes written at a time where a file system cannot zero
constexpr unsigned kClaimPauseUs = 10'000;

// preadv2/pwritev2 until everything has moved; the vectors are only copied when the kernel stops half-way.
template <typename Call>
int All(Call call, const iovec* vector, int count, uint64_t offset) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += vector[i].iov_len;
  ssize_t done = call(vector, count, offset);
  if (done == static_cast<ssize_t>(total)) return 0;
  std::vector<iovec> rest(vector, vector + count);
  size_t first = 0, moved = 0;
  while (true) {
    if (done < 0) {
      if (errno != EINTR) return errno;
      done = 0;
    } else if (done == 0) {
      return EIO;
    }
    moved += static_cast<size_t>(done);
    if (moved == total) return 0;
    for (auto left = static_cast<size_t>(done); left > 0;) {
      const size_t part = std::min(left, rest[first].iov_len);
      rest[first].iov_base = static_cast<char*>(rest[first].iov_base) + part;
      rest[first].iov_len -= part;
      left -= part;
      if (rest[first].iov_len == 0) first++;
    }
    done = call(rest.data() + first, static_cast<int>(rest.size() - first), offset + moved);
  }
}

class File final : public Store {
 public:
  File(const std::string& path, const FileOptions& options) : path_(path), options_(options) {
    struct stat st = Stat();
    readonly_ = options.readonly;
    claimed_ = options.claim;
    try {
      fd_ = os::Open(path, Flags(st));
    } catch (const SysError& error) {
      if (!options.force || error.err() != EBUSY || Flags(st) == Mode()) throw;
      fd_ = os::Open(path, Mode());
    }
    if (claimed_) Lock(fd_.get(), options.force);
    Check(::fstat(fd_.get(), &st), "fstat", path.c_str());
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) throw SysError(ENOTSUP, "open", path);
    device_ = S_ISBLK(st.st_mode);
    // A device has no holes to keep.
    zero_ = device_ && options.zero == ZeroMode::kHoles ? ZeroMode::kWrite : options.zero;
    durability_ = Durability::Of(st);
    geometry_ = GeometryOf(fd_.get(), st);
    struct statfs fs;
    const bool told = ::fstatfs(fd_.get(), &fs) == 0, known = told && !device_;
    identity_ = IdentityOf(fd_.get(), st, told ? &fs : nullptr);
    if (options.direct) {
      alignment_ = AlignmentOf(fd_.get(), geometry_);
      geometry_.direct_memory = alignment_.memory;
      geometry_.direct_offset = alignment_.offset;
    }
    asks_ = known && std::find(std::begin(kAsking), std::end(kAsking), fs.f_type) != std::end(kAsking);
    tmpfs_ = known && fs.f_type == kTmpfsMagic;
    fuse_ = known && fs.f_type == kFuseMagic;
    size_ = device_ ? Refresh() : static_cast<uint64_t>(st.st_size);
    char byte;
    iovec one{&byte, 1};
    // A kernel that cannot do it for this file says so, even at the end of the file.
    // Past the page cache it says so before it looks at the alignment.
    const bool nowait =
        ::preadv2(fd_.get(), &one, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN || (options.direct && errno == EINVAL);
    try_ = nowait && !tmpfs_ && !options.direct;
    async_ = nowait && options.direct;
    const bool mapped = known && std::find(std::begin(kMapped), std::end(kMapped), fs.f_type) != std::end(kMapped);
    views_ = (tmpfs_ || (try_ && mapped)) && !options.direct && Tells(st);
    if (views_) NewView();
    parallel_ = known && std::find(std::begin(kParallel), std::end(kParallel), fs.f_type) != std::end(kParallel);
  }

  // Whoever drops the last reference may be the event loop.
  ~File() override {
    // The last close(2) of a block device writes back what is dirty.
    if (!asks_ && (!device_ || readonly_)) return;
    if (fuse_)
      UnlockImage(fd_.get());  // the kernel keeps these locks itself, as a rule: others may use the file at once
    const auto last = std::make_shared<Fd>(std::move(fd_));
    Farewell(changes(), [last] { last->Reset(); });
  }

  bool Fleeting() const override { return views_ && !tmpfs_; }
  bool CanTry() const override { return try_; }
  bool Async() const override { return async_; }
  bool parallel() const override { return parallel_; }
  bool Cached() const override { return !options_.direct; }
  bool Waits() const override { return !tmpfs_; }
  // io_uring goes on behind a short transfer by itself. On files of FUSE without a page cache it does so from the
  // offset of the whole request, and the wrong data counts as moved (seen on Linux 6.18 with short reads and short
  // writes).
  int fd() const override { return fuse_ || !options_.ring ? -1 : fd_.get(); }
  const char* without_ring() const override { return fuse_ ? "FUSE" : nullptr; }
  Geometry geometry() const override { return geometry_; }
  std::optional<FileIdentity> identity() const override { return identity_; }

  int DoRead(const iovec* to, int count, uint64_t offset, bool nowait) override {
    if ((nowait || tmpfs_) && ReadMapped(to, count, offset)) return 0;
    if (nowait) {
      size_t total = 0;
      for (int i = 0; i < count; i++) total += to[i].iov_len;
      const ssize_t done = ::preadv2(fd_.get(), to, count, static_cast<off_t>(offset), RWF_NOWAIT);
      // Half of it in the page cache, or the end of a truncated file: the waiting read finds out which.
      return done == static_cast<ssize_t>(total) ? 0 : EAGAIN;
    }
    if (!Takes(to, count, offset)) return BouncedRead(fd_.get(), alignment_, to, count, offset);
    return All([this](const iovec* v, int n, uint64_t at) { return ::preadv(fd_.get(), v, n, static_cast<off_t>(at)); },
               to, count, offset);
  }

  const std::byte* View(uint64_t offset, uint64_t length) override {
    FileView* view = view_.load(std::memory_order_acquire);
    return view && view->Has(offset, length, size()) ? view->for_kernel() + offset : nullptr;
  }

  bool ReadMapped(const iovec* to, int count, uint64_t offset) override {
    FileView* view = view_.load(std::memory_order_acquire);  // once: there may be another one any time
    if (!view || !view->Has(offset, BytesOf(to, count), size())) return false;
    Scatter(view->guarded() + offset, to, count);
    return !view->broken();
  }

  bool Takes(const iovec* parts, int count, uint64_t offset) const override {
    return !options_.direct || Aligned(alignment_, parts, count, offset);
  }
  Alignment alignment() const override { return alignment_; }

  bool WantsZeroes(const iovec* from, int count) const override {
    if (zero_ == ZeroMode::kWrite) return false;
    size_t total = 0;
    for (int i = 0; i < count; i++) total += from[i].iov_len;
    return total >= kZeroMinimum && AllZero(from, count);
  }

  int DoWrite(const iovec* from, int count, uint64_t offset) override {
    if (WantsZeroes(from, count) && StayZero(from, count, offset)) return 0;
    if (!Takes(from, count, offset)) return BouncedWrite(fd_.get(), alignment_, from, count, offset);
    return All(
        [this](const iovec* v, int n, uint64_t at) { return ::pwritev(fd_.get(), v, n, static_cast<off_t>(at)); }, from,
        count, offset);
  }

  int DoSync() override {
    // An interrupted wait has lost nothing; every other failure may have.
    while (::fdatasync(fd_.get()) != 0)
      if (errno != EINTR) return errno;
    return 0;
  }

  int DoZero(uint64_t offset, uint64_t length, bool deallocate) override {
    const Hole hole(view_, offset, length);
    if (deallocate || device_ || zero_ == ZeroMode::kWrite) return ZeroAll(offset, length, deallocate);
    // A hole stays a hole, as where the zeroes are written.
    const uint64_t end = offset + length;
    for (int parts = 1; offset < end; parts++) {
      const Range data = parts == kParts ? Range{offset, end - offset} : FirstData(fd_.get(), offset, end - offset);
      if (data.length == 0) break;
      if (const int err = ZeroAll(data.offset, data.length, false)) return err;
      offset = data.offset + data.length;
    }
    return 0;
  }

  int DoDiscard(uint64_t offset, uint64_t length) override {
    const Hole hole(view_, offset, length);
    if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length)) == 0)
      return 0;
    return errno == EOPNOTSUPP || errno == ENOSYS ? 0 : errno;
  }

  void Reopen() override {
    std::lock_guard guard(changing_);
    const struct stat st = Stat();
    Replace(os::Open(path_, Mode()), claimed_ ? Locks::kKept : Locks::kNone);
    if (Flags(st) != Mode()) Take(st, Locks::kKept);
    durability_->Clear();
  }

  void Claim() override {
    std::lock_guard guard(changing_);
    if (claimed_) return;
    const struct stat st = Stat();
    claimed_ = true;
    try {
      if (Flags(st) != Mode())
        Take(st, Locks::kFresh);
      else
        Lock(fd_.get(), options_.force);
    } catch (const SysError&) {
      claimed_ = false;
      throw;
    }
  }

  void Release() override {
    std::lock_guard guard(changing_);
    if (!claimed_) return;
    // A device is claimed by its description.
    if (device_) Replace(os::Open(path_, Mode()), Locks::kNone);
    UnlockImage(fd_.get());
    claimed_ = false;
  }

  uint64_t Refresh() override {
    uint64_t bytes = 0;
    if (device_) {
      Check(::ioctl(fd_.get(), BLKGETSIZE64, &bytes), "BLKGETSIZE64");
    } else {
      struct stat st;
      Check(::fstat(fd_.get(), &st), "fstat");
      bytes = static_cast<uint64_t>(st.st_size);
    }
    const uint64_t before = size_.exchange(bytes, std::memory_order_relaxed);
    if (views_ && before != bytes) NewSize(std::min(before, bytes));
    return bytes;
  }

 private:
  static constexpr size_t kViews = 16;  // at most: each truncation that a reader meets takes one

  // While a range may become a hole.
  class Hole {
   public:
    Hole(const std::atomic<FileView*>& view, uint64_t offset, uint64_t length)
        : view_(view), offset_(offset), length_(length) {
      Forget();
    }
    ~Hole() { Forget(); }
    Hole(const Hole&) = delete;
    Hole& operator=(const Hole&) = delete;

   private:
    // Of the view as it is now: it may be another one since.
    void Forget() const {
      if (FileView* view = view_.load(std::memory_order_seq_cst)) view->Forget(offset_, length_);
    }

    const std::atomic<FileView*>& view_;
    const uint64_t offset_, length_;
  };

  // Holes or not.
  int ZeroAll(uint64_t offset, uint64_t length, bool deallocate) {
    const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    for (int i = 0; i < 2; i++) {
      // Not asked to deallocate: keep the space, so that a later write cannot fail for want of it.
      const int mode = modes[deallocate ? i : 1 - i];
      if (!deallocate && mode == modes[0] && !tmpfs_) break;
      if (::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0) return 0;
      if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
    }
    static const char* const zeroes = new char[kZeroes]();  // never freed: threads outlive the end of main()
    while (length > 0) {
      const size_t part = std::min<uint64_t>(length, kZeroes);
      if (const int err = Write(zeroes, part, offset)) return err;
      offset += part;
      length -= part;
    }
    return 0;
  }

  // Whether the kernel tells this process which pages of the file are there (can_do_mincore).
  bool Tells(const struct stat& st) const {
    return st.st_uid == ::geteuid() || ::faccessat(AT_FDCWD, path_.c_str(), W_OK, AT_EACCESS) == 0;
  }

  void NewView() {
    std::lock_guard guard(view_lock_);
    if (all_views_.size() == kViews) return;
    try {
      all_views_.push_back(std::make_unique<FileView>(fd_.get(), size(), tmpfs_));
      view_.store(all_views_.back().get(), std::memory_order_seq_cst);
    } catch (const std::exception&) {
      view_.store(nullptr, std::memory_order_release);  // no room to map it, or to note it: it is read
    }
  }

  // The file has another size from `from` on.
  void NewSize(uint64_t from) {
    FileView* view = view_.load(std::memory_order_acquire);
    if (view && view->broken()) return NewView();
    if (view) view->Forget(from, UINT64_MAX);
  }

  // Of a description that takes the place of another one: none, those that the other one has, new ones.
  enum class Locks : uint8_t { kNone, kKept, kFresh };

  // Whether the range is a hole, or has become one.
  bool StayZero(const iovec* from, int count, uint64_t offset) {
    uint64_t length = 0;
    for (int i = 0; i < count; i++) length += from[i].iov_len;
    if (!device_ && IsHole(fd_.get(), offset, length)) return true;
    const Hole hole(view_, offset, length);
    // Whatever fails here, the write that follows finds out.
    return zero_ == ZeroMode::kUnmap && ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                    static_cast<off_t>(offset), static_cast<off_t>(length)) == 0;
  }

  // Of the path, before open(2), which would wait for the other end of a pipe.
  struct stat Stat() const {
    struct stat st;
    Check(::stat(path_.c_str(), &st), "open", path_.c_str());
    if (S_ISDIR(st.st_mode)) throw SysError(EISDIR, "open", path_);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) throw SysError(ENOTSUP, "open", path_);
    return st;
  }
  int Mode() const { return (options_.readonly ? O_RDONLY : O_RDWR) | (options_.direct ? O_DIRECT : 0); }
  // A block device is claimed as mount(2) claims it, unless it is read alone or shared.
  int Flags(const struct stat& st) const {
    return claimed_ && S_ISBLK(st.st_mode) && !options_.readonly && !options_.shared ? Mode() | O_EXCL : Mode();
  }

  void Lock(int fd, bool force) const {
    if (const int err = LockImage(fd, {!options_.readonly, options_.shared, force})) throw SysError(err, "lock", path_);
  }

  // Claims a block device. The claim of an older description ends with the last request on it.
  void Take(const struct stat& st, Locks locks) {
    for (int tries = 1;; tries++) try {
        return Replace(os::Open(path_, Flags(st)), locks);
      } catch (const SysError& error) {
        if (error.err() != EBUSY || std::string_view(error.call()) != "open" || tries == kClaimTries) throw;
        ::usleep(kClaimPauseUs);
      }
  }

  // Puts another description of the same file in place of the one in use, under its number.
  void Replace(Fd fresh, Locks locks) {
    struct stat now, before;
    Check(::fstat(fresh.get(), &now), "fstat", path_.c_str());
    Check(::fstat(fd_.get(), &before), "fstat", path_.c_str());
    if (now.st_mode != before.st_mode || now.st_rdev != before.st_rdev ||
        (!device_ && (now.st_dev != before.st_dev || now.st_ino != before.st_ino)))
      throw SysError(ESTALE, "open", path_);
    if (locks != Locks::kNone) {
      Lock(fresh.get(), locks == Locks::kKept || options_.force);
      // A view, or a request under way, keeps the older description, which would keep its own locks.
      UnlockImage(fd_.get());
    }
    os::Replace(fresh.get(), fd_.get());
    Opened();
  }

  const std::string path_;
  const FileOptions options_;
  Fd fd_;
  Alignment alignment_;
  Geometry geometry_;
  FileIdentity identity_;
  ZeroMode zero_ = ZeroMode::kWrite;
  bool device_ = false, tmpfs_ = false, fuse_ = false, asks_ = false, try_ = false, async_ = false, parallel_ = false;
  bool views_ = false;
  std::mutex view_lock_;
  std::vector<std::unique_ptr<FileView>> all_views_;  // memory of earlier ones may still be on its way
  std::atomic<FileView*> view_{nullptr};
  std::mutex changing_;  // of the description behind fd_, which may hang
  bool claimed_ = true;
};

}  // namespace

std::shared_ptr<Store> OpenFile(const std::string& path, const FileOptions& options) {
  return std::make_shared<File>(path, options);
}

std::shared_ptr<Store> OpenFileLater(const std::string& path, const FileOptions& options) {
  try {
    return OpenFile(path, options);
  } catch (const SysError& error) {
    if (error.err() != EBUSY || AwaitFarewells() != Farewells::kEnded) throw;
    return OpenFile(path, options);
  }
}

}  // namespace vioctl::storage
