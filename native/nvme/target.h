// The engine of an NVMe/TCP target: sockets, PDUs and I/O queues, in its own threads. What a command of the admin queue
// means is decided elsewhere: such commands are handed out as events and answered by Complete().
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "crypto/tls.h"
#include "nvme/command.h"
#include "nvme/limits/budget.h"
#include "nvme/usage.h"
#include "os/fd.h"
#include "storage/store.h"

namespace vioctl::nvme {

class Worker;

// What a queue has done. Written by one thread, read by any.
struct Counters {
  uint16_t qid = 0;  // set before others see it
  std::atomic<uint64_t> reads{0}, writes{0}, readBytes{0}, writtenBytes{0}, flushes{0}, others{0}, errors{0};
  std::atomic<uint64_t> outstanding{0};  // commands under way; not merged
  static void Add(std::atomic<uint64_t>& counter, uint64_t n = 1) {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void Merge(const Counters& from);
};

struct Namespace {
  std::shared_ptr<storage::Store> store;
  std::atomic<bool> removed{false};  // hosts that owe data for it must not keep it
  // Of its requests, those that are in a ring: those that may take a thread of the kernel; those that do not wait for
  // the page cache either.
  std::atomic<uint32_t> inRings{0}, direct{0};
  uint8_t shift = 9;  // log2 of the block size
  bool readonly = false;
  bool regular = false;  // stored in a regular file
  std::atomic<uint64_t> blocks{0};
  Usage usage;
  // Fused compare-and-write against other writes: the number of writers, or -1 for the fused pair alone, and the pairs
  // that wait to be alone: new writers let them go first.
  std::atomic<int> writers{0}, pairs{0};

  // Enters among the writers, if no fused pair is there or waits. Leave with WriteDone().
  bool TryWrite() {
    if (pairs.load(std::memory_order_relaxed) > 0) return false;
    int now = writers.load(std::memory_order_relaxed);
    while (now >= 0)
      if (writers.compare_exchange_weak(now, now + 1, std::memory_order_acquire)) return true;
    return false;
  }
  void WriteDone() { writers.fetch_sub(1, std::memory_order_release); }
};

// The namespaces of one controller by NSID - 1. A gate is the status of every command while the namespace is not
// accessible through this controller (asymmetric access).
struct NamespaceTable {
  struct Entry {
    std::shared_ptr<Namespace> ns;
    Status gate = kOk;
  };
  std::vector<Entry> entries;
};

// What the I/O queues of one association share.
struct Controller {
  std::atomic<bool> ready{false};
  std::atomic<bool> writeCache{true};  // off: every write is durable before it is answered (feature 06h)
  std::atomic<uint64_t> activity{0};   // ms of the monotonic clock at the last command
  std::atomic<uint32_t> generation{0};
  std::atomic<uint32_t> running{0};  // I/O commands that are being done or wait for their turn under limits
  std::mutex mutex;
  std::shared_ptr<const NamespaceTable> table = std::make_shared<NamespaceTable>();
  std::vector<std::shared_ptr<Counters>> queues;
  Counters closed;
  std::shared_ptr<Budget> budget;  // of its host; set before its first queue is there, and not changed
};

struct Event {
  enum Kind : uint8_t { kOpened, kCommand, kClosed, kError, kKey };
  Kind kind;
  uint32_t connection = 0;
  uint32_t tag = 0;  // of a command, for Complete(); of an opened connection: its listener, in the order of Listen()
  Sqe sqe{};
  std::vector<uint8_t> data;            // of a command; of an opened connection: its addresses as text
  Status status = kOk;                  // of an error
  const char* reason = "";              // of a closed connection
  std::vector<std::string> identities;  // for AnswerKey()
  uint16_t fes = 0;
  uint32_t fei = 0;
};

// What becomes of a connection after its CONNECT.
struct QueueSetup {
  uint16_t qid = 0;
  uint16_t size = 0;  // entries
  bool flowControl = true;
  std::shared_ptr<Controller> controller;
  bool locked = false;  // nothing but authentication passes until Unlock()
};

// Whether connections through a listener are by TLS: never, as the host likes, always.
enum class TlsUse : uint8_t { kNone, kAllow, kRequire };

struct TargetOptions {
  int threads = 1;
  int spinMicroseconds = 50;
  int maxConnections = 1024;
  int handshakeMs = 10000;
  bool uring = false;  // what may wait goes to a ring of the thread, not to the executor
  bool headerDigest = true, dataDigest = true;
};

class Target {
 public:
  explicit Target(const TargetOptions& options);
  ~Target();

  // Listens and returns the port. Throws SysError.
  uint16_t Listen(const std::string& address, uint16_t port, bool ipv6);
  // Closes a listener, as Listen() counts them; `done` is called, from any thread, when its port is free.
  void Unlisten(uint32_t listener, std::function<void()> done);
  // Takes connections of a socket that listens.
  void Listen(Fd fd, TlsUse tls = TlsUse::kNone);
  // TLS of the connections that come through a listener from now on.
  void SetTls(uint32_t listener, TlsUse tls);

  // All events since the last call; `events()` is readable when there are some.
  std::vector<Event> Take();
  int events() const { return eventfd_.get(); }

  void Setup(uint32_t connection, const QueueSetup& setup);
  // The key of one of the identities of an event of this kind; without bytes: none is known.
  void AnswerKey(uint32_t connection, crypto::Psk psk);
  // Its host has proved who it is.
  void Unlock(uint32_t connection);
  void Complete(uint32_t connection, uint32_t tag, Status status, uint64_t result, std::vector<uint8_t> data);
  // Tells all connections that tables of namespaces have changed. `done` is called, from any thread, when none keeps a
  // namespace that is gone, other than for a command that is being done.
  void Renew(std::function<void()> done);
  // Ends a connection once what was queued for it has left.
  void Close(uint32_t connection);
  // Closes all sockets and ends all threads, once the commands that they do have ended. Idempotent.
  void Stop();

  const TargetOptions& options() const { return options_; }
  int connections() const { return connections_.load(); }
  void SetMaxConnections(int connections) { maxConnections_.store(connections); }
  // "uring" or "sync": what does the I/O that waits, once a thread has tried.
  const char* engine() const { return options_.uring && !uringMissing_.load() ? "uring" : "sync"; }

 private:
  friend class Worker;
  friend class Connection;
  void Push(Event event);
  Worker& WorkerOf(uint32_t connection);

  TargetOptions options_;
  Fd eventfd_;
  std::mutex mutex_;
  std::vector<Event> events_;
  std::atomic<int> connections_{0}, maxConnections_;
  std::atomic<bool> uringMissing_{false};
  std::vector<std::unique_ptr<Worker>> workers_;
  bool stopped_ = false;
};

}  // namespace vioctl::nvme
