#include "nvme/host/load.h"

#include <poll.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "os/clock.h"

namespace vioctl::nvme::host {

void Histogram::Add(uint64_t ns) {
  size_t index = ns;
  if (ns >= 64) {
    const int power = 63 - std::countl_zero(ns);
    index = 64 + static_cast<size_t>(power - 6) * 32 + ((ns >> (power - 5)) & 31);
  }
  buckets_[index]++;
  count_++;
  sum_ += static_cast<double>(ns);
  min_ = std::min(min_, ns);
  max_ = std::max(max_, ns);
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; i++) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

Histogram::Bucket Histogram::Bounds(size_t index) {
  if (index < 64) return {index, index + 1, 0};
  const size_t power = (index - 64) / 32 + 6;
  const uint64_t low = (1ULL << power) + ((index - 64) % 32 << (power - 5));
  return {low, low + (1ULL << (power - 5)), 0};
}

std::vector<Histogram::Bucket> Histogram::Buckets() const {
  std::vector<Bucket> all;
  for (size_t i = 0; i < kBuckets; i++) {
    if (buckets_[i] == 0) continue;
    all.push_back(Bounds(i));
    all.back().count = buckets_[i];
  }
  return all;
}

uint64_t Histogram::Percentile(double part) const {
  const auto wanted = static_cast<uint64_t>(part * static_cast<double>(count_));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; i++) {
    seen += buckets_[i];
    if (seen == 0 || seen < wanted) continue;
    const auto [from, to, count] = Bounds(i);
    return std::clamp<uint64_t>(from + (to - from) / 2, min_, max_);
  }
  return 0;
}

namespace {

constexpr uint64_t kUs = 1000;  // ns
constexpr int kSleepMs = 20;    // between looks at clocks

// One queue under load: it keeps `depth` commands outstanding.
class Lane {
 public:
  Lane(const LoadOptions& options, Queue& queue, uint32_t number, uint32_t lanes)
      : o_(options),
        queue_(queue),
        size_(options.io_blocks * options.block_size),
        random_(options.seed * 1000003 + number) {
    commands_.resize(options.depth);
    for (Command& command : commands_) {
      command.owner = this;
      command.done = [](Command* done, int err) { static_cast<Lane*>(done->owner)->Done(*done, err); };
      free_.push_back(&command);
    }
    data_.resize(size_);
    for (uint8_t& byte : data_) byte = static_cast<uint8_t>(Random());
    into_.resize(options.depth);
    position_ = o_.first + (o_.blocks / lanes) * number / o_.io_blocks * o_.io_blocks;
  }

  Queue& queue() { return queue_; }
  void Fill(uint64_t now) {
    while (!free_.empty() && !queue_.full()) {
      Command* command = free_.back();
      free_.pop_back();
      Start(*command, now);
    }
  }
  void Receive(LoadResult& result, uint64_t now, bool counts, bool& any) {
    result_ = &result;
    counts_ = counts;
    now_ = now;
    any |= queue_.Receive();
  }

 private:
  uint64_t Random() {  // splitmix64
    uint64_t z = (random_ += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }

  uint64_t NextBlock() {
    const uint64_t places = o_.blocks / o_.io_blocks;
    if (o_.random) return o_.first + Random() % places * o_.io_blocks;
    const uint64_t at = position_;
    position_ += o_.io_blocks;
    if (position_ + o_.io_blocks > o_.first + o_.blocks) position_ = o_.first;
    return at;
  }

  void Start(Command& command, uint64_t now) {
    const auto percent = static_cast<uint64_t>(o_.read_percent);
    const bool write = percent == 0 || (percent < 100 && Random() % 100 >= percent);
    const auto slot = static_cast<size_t>(&command - commands_.data());
    std::vector<uint8_t>& into = into_[slot].bytes;
    if (!write && into.empty()) into.resize(size_);
    into_[slot].part = {write ? data_.data() : into.data(), size_};
    const uint64_t slba = NextBlock();
    command.sqe = {};
    command.sqe.opcode = write ? kWrite : kRead;
    command.sqe.nsid = o_.nsid;
    command.sqe.cdw10 = static_cast<uint32_t>(slba);
    command.sqe.cdw11 = static_cast<uint32_t>(slba >> 32);
    command.sqe.cdw12 = o_.io_blocks - 1;
    command.parts = &into_[slot].part;
    command.count = 1;
    command.length = size_;
    command.direction = write ? kToController : kToHost;
    queue_.Submit(&command, now);
  }

  void Done(Command& command, int err) {
    free_.push_back(&command);
    if (err == EBADMSG) throw SysError(EBADMSG, "nvme/tcp", "data digest");
    if (err != 0) return;  // the connection is lost, which its thread knows
    if (const Status status = command.status()) {
      if (result_->errors++ == 0) result_->first_error = static_cast<uint16_t>(status << 1);
      return;
    }
    if (!counts_) return;
    (command.direction == kToController ? result_->writes : result_->reads)++;
    result_->latency.Add(os::NowNs() - command.started);
  }

  struct Place {
    std::vector<uint8_t> bytes;
    iovec part{};
  };
  const LoadOptions& o_;
  Queue& queue_;
  const uint32_t size_;
  uint64_t random_, position_ = 0, now_ = 0;
  std::vector<Command> commands_;
  std::vector<Command*> free_;
  std::vector<uint8_t> data_;
  std::vector<Place> into_;
  LoadResult* result_ = nullptr;
  bool counts_ = false;
};

// Drives some queues until the end. Throws SysError: connection lost, EPROTO, EBADMSG, ETIMEDOUT.
void Drive(const LoadOptions& o, std::vector<std::unique_ptr<Lane>>& lanes, const std::atomic<bool>& stop,
           LoadResult& result) {
  std::vector<pollfd> polls(lanes.size());
  const uint64_t begin = os::NowNs() + o.warmup_ms * os::kMs, end = begin + o.duration_ms * os::kMs;
  uint64_t last = os::NowNs(), counted = 0;
  const uint64_t limit = o.host.timeout_ms * os::kMs;
  while (true) {
    const uint64_t now = os::NowNs();
    const bool over = now >= end || stop.load(std::memory_order_relaxed);
    bool progress = false;
    uint32_t outstanding = 0;
    for (const auto& lane : lanes) {
      if (!over) lane->Fill(now);
      progress |= lane->queue().Flush();
      lane->Receive(result, now, now >= begin && !over, progress);
      outstanding += lane->queue().outstanding();
    }
    if (over) {
      if (counted == 0) counted = now;
      if (outstanding == 0) break;
      // What trickles is progress, but not for ever.
      if (now - counted > limit) throw SysError(ETIMEDOUT, "nvme/tcp", "commands do not end");
    }
    if (progress) {
      last = now;
      continue;
    }
    if (now - last > limit) throw SysError(ETIMEDOUT, "nvme/tcp", "no completion");
    if (now - last < o.spin_us * kUs) continue;
    for (size_t i = 0; i < lanes.size(); i++) {
      Queue& queue = lanes[i]->queue();
      polls[i] = {queue.fd(), static_cast<short>(POLLIN | (queue.sending() ? POLLOUT : 0)), 0};
    }
    if (::poll(polls.data(), polls.size(), kSleepMs) < 0 && errno != EINTR) throw SysError(errno, "poll");
  }
  result.seconds = counted > begin ? static_cast<double>(counted - begin) / 1e9 : 0;
}

// Keeps the association alive until the threads have ended. Returns an errno if it is lost.
int KeepAlive(const LoadOptions& o, Association& association, const std::atomic<uint32_t>& running) {
  const uint64_t period = o.host.keep_alive_ms * os::kMs / 2;
  uint64_t next = os::NowNs() + period;
  while (running.load() > 0) {
    Wait::Sleep(kSleepMs * os::kMs, -1);
    if (period == 0 || !association.controller().keep_alive || os::NowNs() < next) continue;
    next = os::NowNs() + period;
    Command beat;
    beat.sqe.opcode = kKeepAlive;
    try {
      association.admin().Call(beat, {os::NowNs() + o.host.timeout_ms * os::kMs, -1});
    } catch (const SysError& error) {
      return error.err();
    }
  }
  return 0;
}

}  // namespace

LoadResult Run(const LoadOptions& options, const std::atomic<bool>& stop) {
  const auto association = Association::Connect(options.host, options.address);
  auto& queues = association->io();
  if (queues.empty()) throw SysError(ENXIO, "nvme", "the controller granted no I/O queue");
  const size_t threads = std::clamp<size_t>(options.threads, 1, queues.size());
  std::vector<std::vector<std::unique_ptr<Lane>>> shares(threads);
  const auto count = static_cast<uint32_t>(queues.size());
  for (uint32_t i = 0; i < count; i++)
    shares[i % threads].push_back(std::make_unique<Lane>(options, *queues[i], i, count));
  std::vector<LoadResult> results(threads);
  std::vector<std::exception_ptr> failures(threads);
  std::atomic<uint32_t> running{static_cast<uint32_t>(threads)};
  std::vector<std::thread> workers;
  for (size_t i = 0; i < threads; i++)
    workers.emplace_back([&, i] {
      try {
        Drive(options, shares[i], stop, results[i]);
      } catch (...) {
        failures[i] = std::current_exception();
      }
      running.fetch_sub(1);
    });
  KeepAlive(options, *association, running);
  for (std::thread& worker : workers) worker.join();
  LoadResult sum;
  sum.queues = count;
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
  association->Shutdown({os::NowNs() + options.host.timeout_ms * os::kMs, -1});
  for (const LoadResult& one : results) {
    sum.reads += one.reads;
    sum.writes += one.writes;
    if (sum.errors == 0) sum.first_error = one.first_error;
    sum.errors += one.errors;
    sum.seconds = std::max(sum.seconds, one.seconds);
    sum.latency.Merge(one.latency);
  }
  return sum;
}

}  // namespace vioctl::nvme::host
