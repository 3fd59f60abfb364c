// A queue by itself, for single commands of whoever knows what they mean. A thread of its own connects it and answers.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/error.h"
#include "nvme/host/queue.h"
#include "os/fd.h"

namespace vioctl::nvme::host {

// A command with its data: `sqe`, `direction` and `timeout` are filled in by whoever asks.
struct LoneCommand : Command {
  std::vector<uint8_t> data;
  iovec part{};
  uint32_t in_capsule = 0;      // bytes of data that a capsule takes for it
  std::function<void()> ended;  // called once, from the queue's thread, or within Run() if the queue has ended

  // What became of it.
  std::optional<SysError> failure;  // else `cqe` is the answer
  uint64_t took = 0;                // ns, from its submission to its completion
};

class LoneQueue : public std::enable_shared_from_this<LoneQueue> {
 public:
  LoneQueue(Address address, const QueueOptions& options, uint64_t timeout_ms, Dialer dial);
  // Starts the thread, which connects and then calls `opened` once: failure() says whether it could. Throws SysError.
  void Open(std::function<void()> opened);
  // Ends the connection. Commands that are under way fail with ECANCELED.
  void Close();
  // Commands beyond the depth of the queue wait. One whose time runs out is ETIMEDOUT, and ends the connection.
  void Run(std::shared_ptr<LoneCommand> command);
  // Calls `ended` once when the connection is over.
  void WhenOver(std::function<void()> ended);
  // Why the connection is over, if it is.
  std::optional<SysError> failure();

 private:
  void Body(const std::function<void()>& opened);
  void Loop(Queue& queue);
  bool Take(Queue& queue);
  void Sleep(Queue& queue);
  void Over(const SysError& why, Queue* queue);

  const Address address_;
  const QueueOptions options_;
  const uint64_t timeout_ms_;
  const Dialer dial_;
  const Fd wake_, stop_;

  std::mutex lock_;
  bool closed_ = false;
  std::optional<SysError> failure_;
  std::deque<std::shared_ptr<LoneCommand>> waiting_;
  std::vector<std::function<void()>> watchers_;
  // Of the thread: those that were submitted.
  std::vector<std::shared_ptr<LoneCommand>> under_way_;
};

}  // namespace vioctl::nvme::host
