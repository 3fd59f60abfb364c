// Threads for I/O that may wait for a device. Each source has a queue of its own and a share of the threads, so that a
// source that hangs keeps its own requests waiting and nobody else's.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace vioctl::storage {

class Lane;

// A piece of work. It is part of the object that it works on, so that an I/O allocates nothing.
struct Job {
  Job* link = nullptr;
  Lane* lane = nullptr;
  void (*run)(Job*) = nullptr;  // the last use of the job: it may free or reuse it
  bool brief = false;           // as a rule done without waiting: a write into the page cache
  const void* owner = nullptr;  // who waits for it
  bool more = false;            // set by the executor: the same thread runs another job of this owner at once
};

// The jobs of one source that wait for a thread. Whoever submits a job keeps its lane alive until the job has run.
class Lane : public std::enable_shared_from_this<Lane> {
 public:
  // Whether brief jobs have been done so fast lately that handing them to another thread costs more.
  bool quick() const { return average_.load(std::memory_order_relaxed) < kQuick; }
  // Whether they only copy: no other thread could do them for less than it costs to wake it.
  bool instant() const { return average_.load(std::memory_order_relaxed) < kInstant; }
  // A brief job has taken so many ns, here or elsewhere. From any thread: a lost update only delays the average.
  void Took(uint64_t ns) {
    const uint64_t average = average_.load(std::memory_order_relaxed);
    average_.store(average + (ns >> 3) - (average >> 3), std::memory_order_relaxed);
  }
  // A brief job hangs: those that follow are better done where nobody waits for them.
  void Hangs() { average_.store(kHangs, std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kInstant = 16'000, kQuick = 100'000;  // ns
  static constexpr uint64_t kHangs = 8'000'000;  // ns; some 35 quick jobs of the executor make the lane quick again
  friend class Executor;
  Job* head_ = nullptr;
  Job* tail_ = nullptr;
  uint32_t queued_ = 0, running_ = 0;  // running_: threads at work
  uint32_t slow_ = 0;                  // of them, those whose job is not brief
  bool listed_ = false;                // among the executor's lanes that have something to do
  uint64_t taken_ = 0;                 // when the last job was taken, ns
  std::atomic<uint64_t> average_{0};   // ns that brief jobs have taken lately
};

struct ExecutorLimits {
  uint32_t threads = 128;
  uint32_t perLane = 8;   // threads that work for one lane at a time,
  uint32_t crowded = 64;  // and one only while this many work: so many lanes can hang before all others wait
};

class Executor {
 public:
  // The one of this process, for all its servers. It never ends: whoever gives it a job waits for that one.
  static Executor& Shared();

  // Throws std::system_error when not even one thread can be had.
  explicit Executor(const ExecutorLimits& limits = {});
  ~Executor() { Stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // From any thread. Jobs of a lane are started in this order.
  void Submit(const std::vector<Job*>& jobs);
  // One job for what is rare; `work` does not throw.
  void Submit(std::shared_ptr<Lane> lane, std::function<void()> work);
  // Waits until everything submitted has run, and ends the threads. Nothing may be submitted after that. Idempotent.
  void Stop();
  // Threads that there are now.
  uint32_t threads();

 private:
  void Run();
  void Append(Job* job, uint64_t now);
  uint32_t Useful(const Lane& lane, const Job& job, uint64_t now) const;
  uint32_t Share() const { return busy_ < limits_.crowded ? limits_.perLane : 1; }
  void List(Lane& lane);
  void WakeForRest(uint64_t now);
  void Wake(uint32_t count);
  bool Spawn();
  std::shared_ptr<Lane> NextLane();
  uint32_t Take(Lane& lane, Job** jobs);
  static void GiveBack(Lane& lane, Job* job);
  bool Idle(std::unique_lock<std::mutex>& lock);

  const ExecutorLimits limits_;
  std::mutex mutex_;
  std::condition_variable wake_;
  // Lanes with jobs, in turn: those that no thread works for, and those that could use one thread more.
  std::deque<Lane*> fresh_, more_;
  std::list<std::thread> threads_, ended_;
  uint32_t idle_ = 0;      // threads that wait and have not been woken
  uint32_t wakes_ = 0;     // wake-ups that no thread has taken yet
  uint32_t starting_ = 0;  // threads that have not looked for work yet
  uint32_t busy_ = 0;      // threads inside a job
  bool stop_ = false;
};

}  // namespace vioctl::storage
