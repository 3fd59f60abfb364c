// A virtio-blk queue (virtio 1.3, 5.2.6) in a thread of its own: chains from the ring, I/O through io_uring on the
// store's file, or through the store where it has no file or this kernel offers no io_uring.
#pragma once
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/error.h"
#include "os/fd.h"
#include "storage/store.h"
#include "uring/ring.h"
#include "vhost_user/virtqueue.h"

namespace vioctl::vhost_user {

// What a device holds at most, whatever its guest asks for; each of its queues may use an equal share. A queue takes no
// more chains until some are finished, and always one.
inline constexpr uint64_t kMaxDeviceBytes = 2ull << 30;     // of data in flight
inline constexpr uint64_t kMaxQueueBytes = 256ull << 20;    // of them in one queue
inline constexpr uint64_t kMaxDeviceSegments = 1ull << 20;  // pieces of memory (iovec) that chains in flight refer to
inline constexpr uint64_t kMaxQueueSegments = 1ull << 17;   // of them in one queue
inline constexpr uint32_t kMaxQueueRequests = 1024;         // in flight in one queue
// Larger requests are answered with an error. A read or write of this size still is one system call.
inline constexpr uint64_t kMaxRequestBytes = 1ull << 30;

struct BlkOptions {
  std::shared_ptr<storage::Store> store;
  std::string serial;  // answer to GET_ID, at most 20 bytes
  bool io_uring = true;
  // As the configuration space offers them: data segments of a request, sectors and ranges of a discard or write of
  // zeroes.
  uint32_t seg_max = 126, max_sectors = 1u << 22, max_ranges = 1;
  uint32_t queues = 1;  // that share the limits of the device
};

// Counted by the queue's thread, read by others.
struct BlkStats {
  std::atomic<uint64_t> reads{0}, writes{0}, flushes{0}, others{0}, errors{0}, bytes_read{0}, bytes_written{0};
};

class BlkQueue {
 public:
  // Takes over the ring at once. kick is not owned and must stay open until Join() has returned; call is owned, none
  // if the driver polls. Throws SysError where the ring does not lie in memory.
  BlkQueue(BlkOptions options, std::shared_ptr<const GuestMemory> memory, const Virtqueue::Layout& layout, int kick,
           Fd call);
  ~BlkQueue();

  // Signalled when the thread has ended: after Stop(), or because the driver broke the ring (error()).
  int ended_fd() const { return ended_.get(); }
  // Asks the thread to end when all that it has taken is answered.
  void Stop();
  // Waits for the thread. Returns the index for GET_VRING_BASE.
  uint32_t Join();
  // Another memory table; returns when the thread uses it. Throws as the constructor.
  void Remap(std::shared_ptr<const GuestMemory> memory, const Virtqueue::Layout& layout);
  void SetCall(Fd call);
  const std::string& error() const { return error_; }
  bool uses_io_uring() const { return uses_io_uring_; }
  const BlkStats& stats() const { return stats_; }

 private:
  // A flush that shares a sync of the store; told from another queue's thread.
  struct Sync final : storage::SyncWaiter {
    BlkQueue* queue = nullptr;
    uint32_t slot = 0;
    void Lead() override { queue->Tell({slot, true, 0}); }
    void Synced(int err) override { queue->Tell({slot, false, err}); }
  };
  struct Told {
    uint32_t slot;
    bool leads;
    int err;
  };

  // A request between Next() and Put(). Its vectors keep their capacity.
  struct Request {
    Chain chain;
    std::shared_ptr<const GuestMemory> memory;  // that the chain points into
    uint8_t* status = nullptr;
    std::vector<iovec> data;
    uint64_t size = 0, offset = 0;
    uint64_t held_bytes = 0, held_segments = 0;  // counted in the queue's totals
    bool write = false, flush = false;           // flush: the sync of a flush, or behind a write
    Sync sync;
  };
  enum : uint64_t { kKick = UINT64_MAX, kWake = UINT64_MAX - 1 };

  void Run();
  void Loop();
  bool Takes() const;
  bool TakeAll();
  bool Admit(Request& request);
  void LogWrites(const Request& request);
  void Start(uint32_t slot);
  int RunNow(Request& request, uint32_t type);
  int Segments(Request& request, bool zero);
  void Finish(uint32_t slot, int failure);
  void Completed(uint32_t slot, int result);
  void Changed(uint32_t slot);
  void Flush(uint32_t slot);
  void LeadSync(uint32_t slot);
  void EndSync(uint32_t slot, int result);
  void Tell(Told told);
  void TakeTold(bool ending);
  void AbandonSyncs();
  void Notify();
  void Wait();
  void Commands();
  void Poll(int fd, uint64_t tag);
  void Polled(const io_uring_cqe& cqe);

  BlkOptions options_;
  std::unique_ptr<Virtqueue> queue_;
  const int kick_;
  std::mutex call_lock_;
  Fd call_;
  bool call_non_blocking_;
  Fd wake_, ended_;
  std::optional<uring::Ring> ring_;
  bool uses_io_uring_ = false;
  std::vector<Request> requests_;
  std::vector<uint32_t> free_;
  uint32_t in_flight_ = 0;
  const uint64_t max_bytes_, max_segments_;
  uint64_t held_bytes_ = 0, held_segments_ = 0;
  // The driver has no flush to ask for: what it writes is durable when it is answered (virtio 1.3, 5.2.6.2).
  bool write_through_ = false;
  bool dirty_ = false;  // something was put since the last notification
  bool kick_polled_ = false, wake_polled_ = false;
  bool multishot_ = true;
  bool draining_ = false;
  std::vector<uint32_t> leading_;  // slots whose sync runs in the ring: one at most, or none
  uint32_t waiting_ = 0;           // flushes that wait for a sync of another queue or connection
  std::string error_;
  BlkStats stats_;

  std::atomic<bool> asked_{false};  // Commands() has something to do
  std::mutex lock_;
  std::condition_variable applied_;
  bool stop_ = false, ended_flag_ = false;
  struct Change {
    std::shared_ptr<const GuestMemory> memory;
    Virtqueue::Layout layout;
    std::optional<SysError> failure;
    bool done = false;
  };
  Change* change_ = nullptr;
  std::vector<Told> told_;
  std::thread thread_;
};

}  // namespace vioctl::vhost_user
