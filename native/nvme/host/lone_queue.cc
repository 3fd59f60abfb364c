#include "nvme/host/lone_queue.h"

#include <poll.h>

#include <algorithm>

#include "os/clock.h"
#include "os/eventfd.h"
#include "os/thread.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint64_t kLookMs = 1000;  // between looks at the clock, at the latest

}  // namespace

LoneQueue::LoneQueue(Address address, const QueueOptions& options, uint64_t timeout_ms, Dialer dial)
    : address_(std::move(address)),
      options_(options),
      timeout_ms_(timeout_ms),
      dial_(std::move(dial)),
      wake_(os::NewEventfd()),
      stop_(os::NewEventfd()) {}

void LoneQueue::Open(std::function<void()> opened) {
  os::StartThread([self = shared_from_this(), opened = std::move(opened)] { self->Body(opened); }).detach();
}

void LoneQueue::Close() {
  {
    std::lock_guard guard(lock_);
    closed_ = true;
  }
  os::SignalPeer(stop_.get(), true);
  os::SignalPeer(wake_.get(), true);
}

void LoneQueue::Run(std::shared_ptr<LoneCommand> command) {
  {
    std::lock_guard guard(lock_);
    if (!failure_) {
      waiting_.push_back(std::move(command));
      os::SignalPeer(wake_.get(), true);
      return;
    }
    command->failure = failure_;
  }
  command->ended();
}

void LoneQueue::WhenOver(std::function<void()> ended) {
  {
    std::lock_guard guard(lock_);
    if (!failure_) return watchers_.push_back(std::move(ended));
  }
  ended();
}

std::optional<SysError> LoneQueue::failure() {
  std::lock_guard guard(lock_);
  return failure_;
}

void LoneQueue::Body(const std::function<void()>& opened) {
  std::unique_ptr<Queue> queue;
  bool told = false;
  try {
    const Wait wait{os::NowNs() + timeout_ms_ * os::kMs, stop_.get()};
    queue = std::make_unique<Queue>(dial_(address_, wait), options_);
    queue->Negotiate(wait);
    told = true;
    opened();
    Loop(*queue);
    Over(SysError(ECANCELED, "nvme"), queue.get());
  } catch (const SysError& error) {
    Over(error, queue.get());
  } catch (const std::exception&) {
    Over(SysError(ENOMEM, "nvme"), queue.get());
  }
  queue.reset();
  if (!told) opened();
}

void LoneQueue::Loop(Queue& queue) {
  while (Take(queue)) {
    const uint64_t now = os::NowNs();
    Command* expired = nullptr;
    queue.Expired(now, [&](Command* command) { expired = command; });
    if (expired) {
      static_cast<LoneCommand*>(expired)->failure.emplace(ETIMEDOUT, "nvme", "this command");
      throw SysError(ETIMEDOUT, "nvme");
    }
    const bool sent = queue.Flush();
    if (queue.Receive() || sent || (queue.pending() && !queue.sending())) continue;
    Sleep(queue);
  }
}

// Submits what waits. False: the queue was closed.
bool LoneQueue::Take(Queue& queue) {
  std::lock_guard guard(lock_);
  if (closed_) return false;
  while (!waiting_.empty() && !queue.full()) {
    const std::shared_ptr<LoneCommand> command = std::move(waiting_.front());
    waiting_.pop_front();
    command->owner = this;
    command->part = {command->data.data(), command->data.size()};
    command->parts = &command->part;
    command->count = command->data.empty() ? 0 : 1;
    command->length = static_cast<uint32_t>(command->data.size());
    command->done = [](Command* done, int err) {
      auto* of = static_cast<LoneQueue*>(done->owner);
      const auto same = [done](const auto& one) { return one.get() == done; };
      const auto at = std::find_if(of->under_way_.begin(), of->under_way_.end(), same);
      const std::shared_ptr<LoneCommand> command = std::move(*at);
      of->under_way_.erase(at);
      command->took = os::NowNs() - command->started;
      if (err == EBADMSG) command->failure.emplace(EBADMSG, "nvme/tcp", "data digest");
      if (err != 0 && !command->failure) command->failure = of->failure();
      command->ended();
    };
    under_way_.push_back(command);
    queue.set_in_capsule(command->in_capsule);
    queue.Submit(command.get(), os::NowNs());
  }
  return true;
}

void LoneQueue::Sleep(Queue& queue) {
  uint64_t until = os::NowNs() + kLookMs * os::kMs;
  for (const auto& command : under_way_)
    if (command->deadline != 0) until = std::min(until, command->deadline);
  const uint64_t now = os::NowNs();
  pollfd fds[] = {{wake_.get(), POLLIN, 0},
                  {queue.fd(), static_cast<short>(POLLIN | (queue.sending() ? POLLOUT : 0)), 0}};
  ::poll(fds, std::size(fds), until > now ? static_cast<int>((until - now) / os::kMs + 1) : 0);
  if (fds[0].revents) os::ClearPeer(wake_.get());
}

// Everybody learns that there will be no answer.
void LoneQueue::Over(const SysError& why, Queue* queue) {
  std::deque<std::shared_ptr<LoneCommand>> waiting;
  std::vector<std::function<void()>> watchers;
  {
    std::lock_guard guard(lock_);
    failure_ = why;
    waiting.swap(waiting_);
    watchers.swap(watchers_);
  }
  if (queue) queue->Fail(why.err());
  for (const auto& command : waiting) {
    command->failure = why;
    command->ended();
  }
  for (const auto& ended : watchers) ended();
}

}  // namespace vioctl::nvme::host
