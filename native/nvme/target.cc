#include "nvme/target.h"

#include <algorithm>

#include "common/error.h"
#include "nvme/worker.h"
#include "os/eventfd.h"
#include "os/socket.h"

namespace vioctl::nvme {
namespace {

constexpr size_t kMaxEvents = 4096;

}  // namespace

void Counters::Merge(const Counters& from) {
  Add(reads, from.reads);
  Add(writes, from.writes);
  Add(readBytes, from.readBytes);
  Add(writtenBytes, from.writtenBytes);
  Add(flushes, from.flushes);
  Add(others, from.others);
  Add(errors, from.errors);
}

Target::Target(const TargetOptions& options)
    : options_(options), eventfd_(os::NewEventfd()), maxConnections_(options.maxConnections) {
  options_.threads = std::clamp(options_.threads, 1, 64);
  // A worker looks at all workers when it accepts: the list is complete before the first listener is there.
  workers_.reserve(static_cast<size_t>(options_.threads));
  for (int i = 0; i < options_.threads; i++) workers_.push_back(std::make_unique<Worker>(*this, i));
}

Target::~Target() { Stop(); }

uint16_t Target::Listen(const std::string& address, uint16_t port, bool ipv6) {
  uint16_t bound = 0;
  Fd fd = os::ListenTcp(address, port, ipv6, os::kListenBacklog, &bound);
  Listen(std::move(fd));
  return bound;
}

void Target::Unlisten(uint32_t listener, std::function<void()> done) {
  workers_[0]->Post(Worker::Unlisten{listener, {nullptr, [done = std::move(done)](void*) { done(); }}});
}

void Target::Listen(Fd fd, TlsUse tls) { workers_[0]->Post(Worker::ListenOn{{std::move(fd), tls}}); }

void Target::SetTls(uint32_t listener, TlsUse tls) { workers_[0]->Post(Worker::SetTls{listener, tls}); }

void Target::Push(Event event) {
  std::lock_guard lock(mutex_);
  // Errors are for logs: while nobody takes events, more of them are no news.
  if (event.kind == Event::kError && events_.size() >= kMaxEvents) return;
  events_.push_back(std::move(event));
  if (events_.size() == 1) os::SignalEventfd(eventfd_.get());
}

std::vector<Event> Target::Take() {
  std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

void Target::Renew(std::function<void()> done) {
  const std::shared_ptr<void> all(nullptr, [done = std::move(done)](void*) { done(); });
  for (auto& worker : workers_) worker->Post(Worker::Renew{all});
}

Worker& Target::WorkerOf(uint32_t connection) { return *workers_[(connection & 0xff) % workers_.size()]; }

void Target::Setup(uint32_t connection, const QueueSetup& setup) {
  WorkerOf(connection).Post(Worker::Assign{connection, setup});
}

void Target::AnswerKey(uint32_t connection, crypto::Psk psk) {
  WorkerOf(connection).Post(Worker::Key{connection, std::move(psk)});
}

void Target::Unlock(uint32_t connection) { WorkerOf(connection).Post(Worker::Unlock{connection}); }

void Target::Complete(uint32_t connection, uint32_t tag, Status status, uint64_t result, std::vector<uint8_t> data) {
  WorkerOf(connection).Post(Worker::Reply{connection, tag, status, result, std::move(data)});
}

void Target::Close(uint32_t connection) { WorkerOf(connection).Post(Worker::End{connection}); }

void Target::Stop() {
  if (std::exchange(stopped_, true)) return;
  // They wait for the jobs that they gave to the executor.
  for (auto& worker : workers_) worker->Stop();
}

}  // namespace vioctl::nvme
