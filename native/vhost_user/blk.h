// A virtio-blk queue (virtio 1.3, 5.2.6) in a thread of its own, which never waits for a device: it takes chains and
// answers them. Reads and writes go through its io_uring to the file of the store. Without one, what lies in the page
// cache is read at once. Everything else, whatever the engine, is done by the executor (storage/io.h).
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
#include "storage/completions.h"
#include "storage/io.h"
#include "storage/ring/bounce.h"
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
  uint32_t spin_us = 0;  // a queue with nothing to do looks for chains so long before it sleeps
  // As the configuration space offers them: data segments of a request, sectors and ranges of a discard or write of
  // zeroes.
  uint32_t seg_max = 126, max_sectors = 1u << 22, max_ranges = 1;
  uint32_t queues = 1;    // that share the limits of the device
  bool writeback = true;  // of the configuration space, for a driver that can change it
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
  // The driver has written the writeback field: it holds for requests that are taken from now on.
  void SetWriteback(bool on);
  const std::string& error() const { return error_; }
  bool uses_io_uring() const { return uses_io_uring_; }
  const BlkStats& stats() const { return stats_; }

 private:
  // What the executor does for a request, or its turn under the limits of its store.
  struct Work final : storage::Io, storage::Throttle::Waiter {
    BlkQueue* queue = nullptr;
    uint32_t slot = 0;
    bool parked = false;  // it comes back because it may go, not because it is done
    void Admitted() override { queue->completions_.Post(this); }
  };
  // Of a discard or a write of zeroes.
  struct Range {
    uint64_t offset, length;
    bool deallocate;
  };

  // A request between Next() and Put(). Its vectors keep their capacity.
  struct Request {
    Chain chain;
    std::shared_ptr<const GuestMemory> memory;  // that the chain points into
    uint8_t* status = nullptr;
    std::vector<iovec> data;
    uint64_t size = 0, offset = 0;
    std::vector<Range> ranges;                   // those that are still to be done, the first one last
    uint64_t held_bytes = 0, held_segments = 0;  // counted in the queue's totals
    int bounce = -1;  // the buffer that the ring reads or writes in place of the guest's memory
    bool write = false;
    bool owes_sync = false;  // it is durable when it is answered, and is not yet
    Work work;
  };
  enum : uint64_t { kKick = UINT64_MAX, kWake = UINT64_MAX - 1 };

  void Run();
  void Loop();
  bool Takes() const;
  bool TakeSome();
  bool Admit(Request& request);
  void LogWrites(const Request& request);
  void Turn();
  // blk_requests.cc
  void Start(uint32_t slot);
  void StartData(uint32_t slot, uint64_t sector);
  void Transfer(uint32_t slot);
  void StartRanges(uint32_t slot, bool zero);
  int TakeRanges(Request& request, bool zero);
  void NextRange(uint32_t slot);
  void GetId(Request& request);
  void Wherever(uint32_t slot);
  bool InRing(uint32_t slot);
  bool Bounce(uint32_t slot);
  bool Refile();
  io_uring_sqe* Entry();
  void Elsewhere(uint32_t slot, storage::Op op);
  void Dispatch();
  void TakeDone();
  void AwaitOthers();
  void Completed(uint32_t slot, int result);
  void Ended(uint32_t slot, int failure);
  void Finish(uint32_t slot, int failure);
  // blk_limits.cc
  bool MayGo(uint32_t slot, uint64_t bytes);
  void Go(uint32_t slot);
  void Unpark();
  void Notify();
  bool Spin();
  void Wait();
  void Sleep();
  void Commands();
  void Poll(int fd, uint64_t tag);
  void Polled(const io_uring_cqe& cqe);

  BlkOptions options_;
  // Of the store, which does not change its kind: looked at for each request.
  const bool waits_, tries_, direct_;
  std::unique_ptr<Virtqueue> queue_;
  const int kick_;
  std::mutex call_lock_;
  Fd call_;
  bool call_non_blocking_;
  Fd wake_, ended_;
  std::optional<uring::Ring> ring_;
  std::unique_ptr<storage::BouncePool> bounces_;  // made when they are needed
  uint32_t opened_ = 0;                           // Store::opened() of the file that the ring knows
  bool uses_io_uring_ = false;
  std::vector<Request> requests_;
  std::vector<uint32_t> free_;
  uint32_t in_flight_ = 0, parked_ = 0;
  const uint64_t max_bytes_, max_segments_;
  uint64_t held_bytes_ = 0, held_segments_ = 0;
  const bool flushes_, sets_cache_;  // the driver can flush, and write the writeback field
  // What is written is durable when it is answered (virtio 1.3, 5.2.6.2): the driver cannot flush, or wants it so.
  std::atomic<bool> write_through_;
  bool dirty_ = false;  // something was put since the last notification
  bool kick_polled_ = false, wake_polled_ = false;
  bool multishot_ = true;
  bool draining_ = false;
  const uint64_t spin_ns_;
  uint32_t spin_after_ = 1, spins_failed_ = 0;  // sleeps shorter than a spin before the next one
  storage::Completions completions_;
  std::vector<storage::Job*> gathered_;  // for the executor
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
  std::thread thread_;
};

}  // namespace vioctl::vhost_user
