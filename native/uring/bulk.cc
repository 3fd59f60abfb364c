#include "uring/bulk.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "os/eventfd.h"
#include "uring/bulk_threads.h"

namespace vioctl::uring {
namespace {

// Whether more of the same may be refused while there are some: threads (RLIMIT_NPROC, pids.max), descriptors, locked
// memory.
bool Limited(int error) { return error == EAGAIN || error == EMFILE || error == ENFILE || error == ENOMEM; }

}  // namespace

Bulk::Bulk(const BulkOptions& options) : options_(options), ready_fd_(os::NewEventfd()) {
  const uint32_t threads = std::clamp(options.threads, 1U, std::max(1U, options.depth));
  const uint32_t depth = (options.depth + threads - 1) / threads;
  threads_.reserve(threads);
  try {
    while (threads_.size() < threads) {
      auto thread = options.plain ? MakePlainThread(*this) : MakeRingThread(*this, depth);
      thread->Start();
      threads_.push_back(std::move(thread));
    }
  } catch (const SysError& error) {
    // Those that are there do the same work.
    if (!threads_.empty() && Limited(error.err())) return;
    Stop();
    throw;
  } catch (...) {
    Stop();
    throw;
  }
}

Bulk::~Bulk() { Stop(); }

void Bulk::Stop() {
  {
    const std::lock_guard lock(queue_lock_);  // or a plain thread could miss the end between its look and its sleep
    stopping_ = true;
  }
  for (auto& thread : threads_) thread->Wake(true);
  for (auto& thread : threads_)
    if (!thread->Join()) static_cast<void>(thread.release());
}

void Bulk::Push(const char* names, size_t size, uint32_t first) {
  auto block = std::make_shared<BulkBlock>(BulkBlock{{names, names + size}, first});
  if (size == 0 || block->names.back() != '\0') throw SysError(EINVAL, "bulk", "a block of names ends with NUL");
  {
    const std::lock_guard lock(queue_lock_);
    if (queue_.empty()) at_ = 0, number_ = first;
    queue_.push_back(std::move(block));
  }
  for (auto& thread : threads_) thread->Wake(false);
}

uint32_t Bulk::Names(Name* out, uint32_t limit) {
  const std::lock_guard lock(queue_lock_);
  return Dequeue(out, limit);
}

bool Bulk::Await(Name& out) {
  std::unique_lock lock(queue_lock_);
  more_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
  return !stopping_ && Dequeue(&out, 1) == 1;
}

uint32_t Bulk::Dequeue(Name* out, uint32_t limit) {
  uint32_t count = 0;
  while (count < limit && !queue_.empty()) {
    const auto& block = queue_.front();
    const char* const path = block->names.data() + at_;
    out[count++] = {block, path, number_++};
    at_ += std::strlen(path) + 1;
    if (at_ < block->names.size()) continue;
    queue_.pop_front();
    at_ = 0;
    if (!queue_.empty()) number_ = queue_.front()->first;
  }
  return count;
}

bool Bulk::HasNames() {
  const std::lock_guard lock(queue_lock_);
  return !queue_.empty();
}

void Bulk::Deliver(std::vector<BulkResult>& results) {
  if (results.empty()) return;
  bool first;
  {
    const std::lock_guard lock(results_lock_);
    first = results_.size() == results_at_;
    results_.insert(results_.end(), results.begin(), results.end());
  }
  results.clear();
  if (first) os::SignalEventfd(ready_fd_.get());
}

void Bulk::Failed(int error) {
  failure_ = error;
  os::SignalEventfd(ready_fd_.get());
}

uint32_t Bulk::Take(BulkResult* out, uint32_t limit) {
  if (const int error = failure_; error < 0) throw SysError(-error, "io_uring_enter");
  const std::lock_guard lock(results_lock_);
  const auto count = static_cast<uint32_t>(std::min<size_t>(limit, results_.size() - results_at_));
  std::copy_n(results_.begin() + static_cast<ptrdiff_t>(results_at_), count, out);
  results_at_ += count;
  if (results_at_ == results_.size()) results_.clear(), results_at_ = 0;
  return count;
}

BulkStats Bulk::Stats() const {
  BulkStats sum;
  for (const auto& thread : threads_) {
    sum.enters += thread->enters;
    sum.overflows += thread->overflows;
    sum.bytes += thread->bytes;
  }
  return sum;
}

}  // namespace vioctl::uring
