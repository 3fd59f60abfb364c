// One interface to block storage for every server here: NVMe namespaces, vhost-user disks. Offsets and lengths are
// bytes; who calls checks alignment to its own block size. All methods may be called from several threads at once.
#pragma once
#include <sys/uio.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "os/fd.h"
#include "storage/direct.h"
#include "storage/durability.h"
#include "storage/executor.h"
#include "storage/geometry.h"
#include "storage/request.h"
#include "storage/throttle.h"
#include "storage/zeroes.h"

namespace vioctl::storage {

// What happened to a source, for the log: `what` is one of the words of src/storage/remote/news.ts.
struct News {
  const char* what;
  int err;
};

class Store {
 public:
  virtual ~Store() = default;

  // Of this store alone, for the life of the process.
  uint64_t id() const { return id_; }

  uint64_t size() const { return size_.load(std::memory_order_relaxed); }
  bool readonly() const { return readonly_; }

  // Memory that holds a part of the store, for a system call to read without a copy; nullptr where it has to be read.
  // It stays mapped as long as the store, but its pages may go: a system call is told so, anybody else gets a signal.
  // The range lies within the store.
  virtual const std::byte* View(uint64_t /*offset*/, uint64_t /*length*/) { return nullptr; }
  // Whether the kernel may take pages of View() back, so that whoever looks at them late waits for the disk.
  virtual bool Fleeting() const { return false; }
  // Reads what is mapped and there, without a system call. False: it has to be read.
  virtual bool ReadMapped(const iovec*, int, uint64_t) { return false; }
  // Memory that is the store: what is put there is written, and nothing is owed for it. nullptr where it has to be
  // written. It stays mapped as long as the store. The range lies within the store.
  virtual std::byte* Memory(uint64_t /*offset*/, uint64_t /*length*/) { return nullptr; }
  // Whether its pages never go: then anybody may read there.
  virtual bool Stays() const { return false; }

  // Whether reads may be tried with nowait; where not, they are as fast as memory, or have to run elsewhere.
  virtual bool CanTry() const { return false; }
  // Whether writes end in the page cache, as a rule without waiting.
  virtual bool Cached() const { return false; }
  // Whether the kernel does reads, and with parallel() writes, past the page cache without keeping a thread for each.
  virtual bool Async() const { return false; }
  // Whether the kernel does such writes of a regular file at the same time (FOP_DIO_PARALLEL_WRITE).
  virtual bool parallel() const { return false; }
  // Whether a plain read may wait for a device.
  virtual bool Waits() const { return true; }
  // The file behind the store, for engines that do their own I/O on it; -1 where there is none. Such an engine only
  // reads and writes: it makes data durable with Flush(), or leads a sync of durability().
  virtual int fd() const { return -1; }
  // Why such an engine must leave the file alone, where one could be expected to do it; nullptr where nothing is odd.
  virtual const char* without_ring() const { return nullptr; }

  // Whether requests are begun with Begin() and answered later, by threads that are not ours to keep: nobody needs a
  // thread of the executor for them. See remote/remote.h.
  virtual bool remote() const { return false; }
  // Does a read, write, flush, discard, or write of zeroes. The request is checked: it lies within the source, and
  // changes nothing of one that is read-only.
  virtual void Begin(Request*) {}
  // Whether Begin() makes a request durable that asks for it; otherwise a flush follows the request.
  virtual bool TakesDurable() const { return false; }
  // Whether a sync that ended with this errno may have lost data, and no later one may succeed.
  virtual bool Loses(int err) const { return err != 0; }
  // What the source is called wherever it is opened, and whatever by; empty where identity() says it.
  virtual std::string lasting_name() const { return {}; }
  // What has happened since the last call.
  virtual std::vector<News> TakeNews() { return {}; }

  // Each returns 0 or an errno. A read or write that ends early is EIO: the file was truncated below us.
  // nowait: EAGAIN instead of waiting for a device (only where CanTry()).
  int Read(const iovec* to, int count, uint64_t offset, bool nowait) {
    const int err = DoRead(to, count, offset, nowait);
    if (err != 0 && !(nowait && err == EAGAIN)) Failed(err);
    return err;
  }
  // durable: on stable storage before it returns (FUA). Fails without writing once a sync has failed.
  int Write(const iovec* from, int count, uint64_t offset, bool durable);
  // Everything written before is on stable storage when it returns. Waits for a sync that it can share.
  int Flush();
  // Whether a flush has anything to do.
  bool Syncs() const { return !readonly_ && Waits(); }
  // Whether the data is what is stored: 0, kDiffers, or the errno of a read.
  static constexpr int kDiffers = EILSEQ;
  int Compare(const iovec* with, int count, uint64_t offset);
  // Reads give zeroes afterwards. deallocate: give the space back if that is possible.
  int Zero(uint64_t offset, uint64_t length, bool deallocate);
  // A hint: the contents are not needed any more. Reads give zeroes or the old data.
  int Discard(uint64_t offset, uint64_t length);
  virtual Geometry geometry() const { return {}; }
  // None for memory.
  virtual std::optional<FileIdentity> identity() const { return {}; }
  // Looks for a changed size (a file that was extended or truncated) and returns it.
  virtual uint64_t Refresh() { return size(); }

  // Opens the source anew under the same descriptor and forgets the sync that failed. Requests under way end on the old
  // one. Throws SysError: ESTALE if the name leads to another file by now, EBUSY if the device cannot be claimed again.
  virtual void Reopen() {}

  // Locks the source against others, who may have used it meanwhile. Opening does so too, unless told otherwise. While
  // it is not locked, nothing may be read or written. Throws SysError, EBUSY if somebody else uses it.
  virtual void Claim() {}
  // Lets others use it; nothing is under way, and what was written is durable. Throws SysError of a device that cannot
  // be opened again: then it stays locked.
  virtual void Release() {}

  // Whether an engine of its own can do I/O on fd() with these buffers as they are; Read() and Write() always can.
  virtual bool Takes(const iovec*, int, uint64_t) const { return true; }
  // What such an engine's I/O has to be aligned to otherwise.
  virtual Alignment alignment() const { return {}; }
  // Grows whenever fd() stands for a file that was opened anew: an engine that has registered it does so again.
  uint32_t opened() const { return opened_.load(std::memory_order_acquire); }
  // An eventfd that is written when that grows. A device cannot be claimed again while a ring that sleeps still has the
  // earlier file. Whoever adds one removes it before closing it.
  void AddOpenedEvent(int eventfd);
  void RemoveOpenedEvent(int eventfd);
  // Whether Write() should have this data although the caller has an engine of its own: it is zeroes, and the store may
  // do without writing them.
  virtual bool WantsZeroes(const iovec*, int) const { return false; }

  // Counts a request that has failed, for engines that do their own I/O.
  void Failed(int err) {
    if (err == 0) return;
    failure_.store(err, std::memory_order_relaxed);
    failures_.fetch_add(1, std::memory_order_relaxed);
  }
  // Reads and writes, discards and syncs that have failed, and the errno of the last one.
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }
  int failure() const { return failure_.load(std::memory_order_relaxed); }

  // Errno of the sync that failed; 0 if all that was flushed is durable.
  int sync_error() const { return durability_->error(); }
  // Where what may wait for this source queues.
  const std::shared_ptr<Lane>& lane() const { return lane_; }
  // Where Reopen(), Claim() and Release() queue: not behind requests that a lost device may never end.
  const std::shared_ptr<Lane>& changes() const { return changes_; }
  Durability& durability() const { return *durability_; }
  // How fast it may be used. Whoever takes requests of hosts and guests lets them through here first; Read() and its
  // neighbours do not look at it.
  Throttle& throttle() const { return *throttle_; }
  // One sync, for whoever leads one of durability().
  int SyncNow();

  int Read(void* to, size_t length, uint64_t offset, bool nowait = false) {
    iovec one{to, length};
    return Read(&one, 1, offset, nowait);
  }
  int Write(const void* from, size_t length, uint64_t offset, bool durable = false) {
    iovec one{const_cast<void*>(from), length};
    return Write(&one, 1, offset, durable);
  }

 protected:
  // What a source does itself: 0 or an errno.
  virtual int DoRead(const iovec* to, int count, uint64_t offset, bool nowait) = 0;
  virtual int DoWrite(const iovec* from, int count, uint64_t offset) = 0;
  virtual int DoSync() = 0;
  virtual int DoZero(uint64_t offset, uint64_t length, bool deallocate) = 0;
  virtual int DoDiscard(uint64_t offset, uint64_t length) = 0;

  std::atomic<uint64_t> size_{0};
  std::atomic<uint64_t> failures_{0};
  std::atomic<int> failure_{0};
  // fd() stands for a file that was opened anew.
  void Opened();
  bool readonly_ = false;
  std::shared_ptr<Durability> durability_ = std::make_shared<Durability>();

 private:
  static uint64_t NextId();
  const uint64_t id_ = NextId();
  std::atomic<uint32_t> opened_{0};
  std::mutex opened_lock_;
  std::vector<int> opened_events_;
  const std::shared_ptr<Throttle> throttle_ = std::make_shared<Throttle>();
  const std::shared_ptr<Lane> lane_ = std::make_shared<Lane>();
  const std::shared_ptr<Lane> changes_ = std::make_shared<Lane>();
};

struct FileOptions {
  bool readonly = false;
  bool shared = false;  // with other writers that say the same
  bool force = false;   // although somebody else uses it
  bool direct = false;  // past the page cache (O_DIRECT)
  bool claim = true;    // lock it at once
  bool ring = true;     // io_uring may do its I/O
  ZeroMode zero = ZeroMode::kHoles;
};

// A regular file or a block device. Throws SysError: open, fstat; ENOTSUP for other files;
// EBUSY of "lock" or "open" (O_EXCL of a block device) if somebody else uses it.
std::shared_ptr<Store> OpenFile(const std::string& path, const FileOptions& options);
// The same, for a thread that may wait: this process may just be letting go of that file (storage/farewell.h).
std::shared_ptr<Store> OpenFileLater(const std::string& path, const FileOptions& options);

// Zeroed memory that is given back at the end. Throws SysError (mmap).
std::shared_ptr<Store> OpenRam(uint64_t size);

}  // namespace vioctl::storage
