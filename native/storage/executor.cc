#include "storage/executor.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <system_error>

#include "os/clock.h"

namespace vioctl::storage {
namespace {

constexpr auto kLinger = std::chrono::seconds(10);  // an idle thread ends after this time
// ns: brief jobs that take longer than this wait for something. Far above a copy into the page cache, also where
// several threads write to one file: the kernel lets one in at a time, and more threads would only wait longer.
constexpr uint64_t kSlow = 500'000;
constexpr uint64_t kStuck = 1'000'000;    // ns without a job taken from a lane: it waits for something
constexpr size_t kLook = 8;               // lanes that are looked at for one that could use more threads
constexpr uint32_t kBatch = 32;           // brief jobs that a thread takes at a time
constexpr uint32_t kBriefPerThread = 64;  // brief jobs that are left to one thread, for want of waiting

}  // namespace

Executor& Executor::Shared() {
  static auto* const shared = new Executor;
  return *shared;
}

Executor::Executor(const ExecutorLimits& limits) : limits_(limits) {
  std::lock_guard lock(mutex_);
  threads_.emplace_back([this] { Run(); });
  starting_++;
}

// How many threads more the lane could use.
uint32_t Executor::Useful(const Lane& lane, const Job& job, uint64_t now) const {
  uint32_t threads = lane.running_ + lane.queued_;
  const bool waits = lane.average_ > kSlow || (lane.running_ > 0 && now - lane.taken_ > kStuck);
  if (job.brief && !waits) threads = lane.slow_ + (lane.queued_ + kBriefPerThread - 1) / kBriefPerThread;
  threads = std::min(threads, Share());
  return threads > lane.running_ ? threads - lane.running_ : 0;
}

void Executor::List(Lane& lane) {
  if (lane.queued_ == 0 || lane.running_ >= Share()) return;
  if (lane.listed_) {
    if (lane.running_ > 0) return;
    // Nobody works for it any more: it must not stand behind lanes that have a thread.
    const auto at = std::find(more_.begin(), more_.end(), &lane);
    if (at == more_.end()) return;
    more_.erase(at);
  }
  lane.listed_ = true;
  (lane.running_ == 0 ? fresh_ : more_).push_back(&lane);
}

// What a thread that goes to work leaves behind: it may not come back for long.
void Executor::WakeForRest(uint64_t now) {
  if (!fresh_.empty()) return Wake(1);
  const size_t count = std::min(more_.size(), kLook);
  for (size_t i = 0; i < count; i++)
    if (const uint32_t useful = Useful(*more_[i], *more_[i]->head_, now)) return Wake(useful);
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
  const uint64_t now = os::NowNs();
  std::lock_guard lock(mutex_);
  assert(!stop_);
  for (Job* job : jobs) Append(job, now);
}

void Executor::Submit(std::shared_ptr<Lane> lane, std::function<void()> work) {
  struct Once : Job {
    std::shared_ptr<Lane> kept;
    std::function<void()> work;
  };
  auto once = std::make_unique<Once>();
  once->lane = lane.get();
  once->kept = std::move(lane);
  once->work = std::move(work);
  once->run = [](Job* job) {
    // The lane outlives the job: the thread that runs it holds it too.
    const std::unique_ptr<Once> done(static_cast<Once*>(job));
    done->work();
  };
  Submit({once.release()});
}

// The lane whose turn it is: first those that no thread works for.
std::shared_ptr<Lane> Executor::NextLane() {
  for (std::deque<Lane*>* lanes : {&fresh_, &more_})
    while (!lanes->empty()) {
      Lane* lane = lanes->front();
      lanes->pop_front();
      lane->listed_ = false;
      assert(lane->queued_ > 0);
      if (lane->running_ < Share()) return lane->shared_from_this();
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

// Takes the next job of a lane, or several brief ones of a lane whose jobs do not wait.
uint32_t Executor::Take(Lane& lane, Job** jobs) {
  uint32_t count = 0;
  const bool several = lane.average_ <= kSlow;
  do {
    Job* job = lane.head_;
    lane.head_ = job->link;
    jobs[count++] = job;
    if (!job->brief) break;
  } while (several && count < kBatch && lane.head_ && lane.head_->brief);
  if (!lane.head_) lane.tail_ = nullptr;
  lane.queued_ -= count;
  return count;
}

void Executor::GiveBack(Lane& lane, Job* job) {
  job->link = lane.head_;
  lane.head_ = job;
  if (!lane.tail_) lane.tail_ = job;
  lane.queued_++;
}

void Executor::Run() {
  Job* jobs[kBatch];
  ::pthread_setname_np(::pthread_self(), "vioctl-wait");
  std::unique_lock lock(mutex_);
  starting_--;
  while (true) {
    const std::shared_ptr<Lane> lane = NextLane();
    if (!lane) {
      if (Idle(lock)) continue;
      break;
    }
    const uint32_t count = Take(*lane, jobs);
    const bool brief = jobs[0]->brief;
    lane->running_++;
    if (!brief) lane->slow_++;
    busy_++;
    List(*lane);
    const uint64_t began = os::NowNs();
    lane->taken_ = began;
    WakeForRest(began);
    lock.unlock();
    uint32_t done = 0;
    uint64_t took = 0;
    // The rest of a batch goes back if one has waited: others may do it meanwhile, or at once.
    while (done < count && took < kStuck) {
      jobs[done]->more = done + 1 < count && jobs[done + 1]->owner == jobs[done]->owner;
      jobs[done]->run(jobs[done]);
      done++;
      took = os::NowNs() - began;
    }
    lock.lock();
    busy_--;
    lane->running_--;
    if (!brief) lane->slow_--;
    for (uint32_t i = count; i > done; i--) GiveBack(*lane, jobs[i - 1]);
    if (brief) lane->Took(took / done);
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
