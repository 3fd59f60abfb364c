// Jobs that other threads have ended, on their way back to the thread that gave them away: a stack without locks, and a
// wake-up for a thread that sleeps.
#pragma once
#include <atomic>
#include <cstdint>
#include <utility>

#include "os/eventfd.h"
#include "os/fd.h"
#include "storage/executor.h"

namespace vioctl::storage {

class Completions {
 public:
  // wake: a non-blocking eventfd, the caller's.
  explicit Completions(int wake) : wake_(wake) {}
  Completions(const Completions&) = delete;
  Completions& operator=(const Completions&) = delete;

  // From any thread, once for each job that was counted by Gave().
  void Post(Job* job, bool signal = true) {
    Job* head = head_.load(std::memory_order_relaxed);
    do job->link = head;
    while (!head_.compare_exchange_weak(head, job, std::memory_order_seq_cst));
    if (signal && sleeping_.exchange(false)) os::SignalPeer(wake_, true);
    // The last use of this object: the owner may go as soon as it has counted all.
    posted_.fetch_add(1, std::memory_order_release);
  }

  // The rest is for the owner's thread.

  // So many jobs were given to other threads.
  void Gave(uint32_t count) { gave_ += count; }
  // Jobs that have not come back yet. At 0 no other thread uses this object any more.
  uint32_t out() const { return gave_ - posted_.load(std::memory_order_acquire); }
  bool empty() const { return !head_.load(std::memory_order_relaxed); }
  // What has come back, linked in that order.
  Job* Take() {
    Job* job = head_.exchange(nullptr, std::memory_order_acquire);
    Job* first = nullptr;
    while (job) job = std::exchange(job->link, std::exchange(first, job));
    return first;
  }
  // Before a sleep: from now on the eventfd is signalled. False if something has come already.
  bool Sleep() {
    sleeping_.store(true);
    return !head_.load();
  }
  void Awake() { sleeping_.store(false); }

 private:
  const int wake_;
  std::atomic<Job*> head_{nullptr};  // the latest first
  std::atomic<bool> sleeping_{false};
  std::atomic<uint32_t> posted_{0};  // modulo 2^32, as gave_
  uint32_t gave_ = 0;
};

}  // namespace vioctl::storage
