#include "storage/executor.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <system_error>

namespace vioctl::storage {
namespace {

constexpr auto kLinger = std::chrono::seconds(10);  // an idle thread ends after this time
constexpr uint64_t kSlow = 50'000;                  // ns: jobs that take longer than this wait for something
constexpr uint64_t kStuck = 1'000'000;              // ns without a job taken from a lane: it waits for something
constexpr uint32_t kBriefPerThread = 16;            // brief jobs that are left to one thread, for want of waiting

uint64_t NowNs() {
  timespec ts;
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(ts.tv_nsec);
}

}  // namespace

Executor::Executor(const ExecutorLimits& limits) : limits_(limits) {
  std::lock_guard lock(mutex_);
  threads_.emplace_back([this] { Run(); });
  starting_++;
}

// How many threads more the lane could use.
uint32_t Executor::Useful(const Lane& lane, const Job& job, uint64_t now) const {
  uint32_t threads = lane.running_ + lane.queued_;
  const bool waits = lane.average_ > kSlow || (lane.running_ > 0 && now - lane.taken_ > kStuck);
  if (job.brief && !waits) threads = (lane.queued_ + kBriefPerThread - 1) / kBriefPerThread;
  threads = std::min(threads, busy_ < limits_.crowded ? limits_.perLane : 1);
  return threads > lane.running_ ? threads - lane.running_ : 0;
}

void Executor::List(Lane& lane) {
  if (lane.listed_ || lane.queued_ == 0) return;
  if (lane.running_ >= (busy_ < limits_.crowded ? limits_.perLane : 1)) return;
  lane.listed_ = true;
  lanes_.push_back(&lane);
}

void Executor::Append(Job* job, uint64_t now) {
  Lane& lane = *job->lane;
  job->link = nullptr;
  (lane.tail_ ? lane.tail_->link : lane.head_) = job;
  lane.tail_ = job;
  lane.queued_++;
  List(lane);
  Wake(Useful(lane, *job, now));
}

// Sees to it that `count` threads look for work, as far as there may be so many.
void Executor::Wake(uint32_t count) {
  while (wakes_ + starting_ < count) {
    if (idle_ == 0) {
      if (!Spawn()) return;
      continue;
    }
    idle_--;
    wakes_++;
    wake_.notify_one();
  }
}

bool Executor::Spawn() {
  for (std::thread& thread : ended_) thread.join();
  ended_.clear();
  if (threads_.size() >= limits_.threads || stop_) return false;
  try {
    threads_.emplace_back([this] { Run(); });
  } catch (const std::system_error&) {
    return false;  // those that are there do it
  }
  starting_++;
  return true;
}

void Executor::Submit(const std::vector<Job*>& jobs) {
  const uint64_t now = NowNs();
  std::lock_guard lock(mutex_);
  assert(!stop_);
  for (Job* job : jobs) Append(job, now);
}

// The lane whose turn it is. It goes to the end of the list if another thread may work for it too.
std::shared_ptr<Lane> Executor::NextLane() {
  while (!lanes_.empty()) {
    Lane* lane = lanes_.front();
    lanes_.pop_front();
    lane->listed_ = false;
    assert(lane->queued_ > 0);
    if (lane->running_ < (busy_ < limits_.crowded ? limits_.perLane : 1)) return lane->shared_from_this();
  }
  return nullptr;
}

// Waits for work. False: the thread is to end.
bool Executor::Idle(std::unique_lock<std::mutex>& lock) {
  idle_++;
  wake_.wait_for(lock, kLinger, [this] { return wakes_ > 0 || stop_; });
  if (wakes_ > 0) {
    wakes_--;
    return true;
  }
  idle_--;
  return !stop_ && threads_.size() == 1;
}

void Executor::Run() {
  ::pthread_setname_np(::pthread_self(), "vioctl-wait");
  std::unique_lock lock(mutex_);
  starting_--;
  while (true) {
    const std::shared_ptr<Lane> lane = NextLane();
    if (!lane) {
      if (Idle(lock)) continue;
      break;
    }
    Job* job = lane->head_;
    lane->head_ = job->link;
    if (!lane->head_) lane->tail_ = nullptr;
    lane->queued_--;
    lane->running_++;
    busy_++;
    List(*lane);
    const uint64_t began = NowNs();
    lane->taken_ = began;
    if (!lanes_.empty()) Wake(Useful(*lanes_.front(), *lanes_.front()->head_, began));  // this one may take long
    lock.unlock();
    job->run(job);
    const uint64_t took = NowNs() - began;
    lock.lock();
    busy_--;
    lane->running_--;
    lane->average_ += (took >> 3) - (lane->average_ >> 3);
    List(*lane);
  }
  const auto self = std::find_if(threads_.begin(), threads_.end(),
                                 [](const auto& t) { return t.get_id() == std::this_thread::get_id(); });
  ended_.splice(ended_.end(), threads_, self);
  wake_.notify_all();  // Stop() waits for the last one
}

void Executor::Stop() {
  std::unique_lock lock(mutex_);
  stop_ = true;
  wake_.notify_all();
  wake_.wait(lock, [this] { return threads_.empty(); });
  for (std::thread& thread : ended_) thread.join();
  ended_.clear();
}

uint32_t Executor::threads() {
  std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(threads_.size());
}

}  // namespace vioctl::storage
