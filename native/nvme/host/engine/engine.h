// The thread of a host (host.h): everything here belongs to it, except what says otherwise.
#pragma once
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "nvme/host/host.h"
#include "os/eventfd.h"
#include "storage/remote/unflushed.h"

namespace vioctl::nvme::host {

constexpr size_t kMaxPaths = 32;

// A request of somebody, cut into commands as it is done.
struct Task {
  storage::Request* request = nullptr;  // nullptr: a flush of our own
  storage::Op op = storage::Op::kRead;
  uint64_t next = 0, end = 0;  // bytes that have not been made commands yet
  uint32_t parts = 0;          // commands that are outstanding, or wait to be repeated
  uint64_t covers = 0;         // of a flush: changes that it makes durable (Engine::Changes())
  int err = 0;
};

// A command that has to be repeated, on whatever path.
struct Again {
  Task* task;
  uint64_t offset;
  uint32_t bytes;
  uint32_t tries;
  uint64_t at;  // ns: not before
};

// A command of an I/O queue.
struct Part : Command {
  Task* task = nullptr;  // nullptr: an entry of what is unflushed
  struct Path* path = nullptr;
  uint64_t offset = 0;
  uint32_t bytes = 0, tries = 0;
  DsmRange range{};
  iovec own{};  // its data where that is not the request's
};

// A connection attempt, in a thread of its own, which nobody waits for.
struct Attempt {
  Fd stop = os::NewEventfd();
  std::shared_ptr<Fd> wake;  // of the engine
  std::unique_ptr<Association> made;
  NamespaceFacts facts;
  AnaState state = kAnaOptimized;
  int err = 0;
  std::atomic<bool> over{false};
};

// One address.
struct Path {
  Address address;
  bool given = true;   // not found by a discovery service
  bool wanted = true;  // still named by one
  std::unique_ptr<Association> live;
  std::shared_ptr<Attempt> attempt;
  AnaState state = kAnaOptimized;
  uint32_t failures = 0;  // attempts since it was good for something
  uint64_t retry_at = 0;  // ns
  uint64_t since = 0;     // it is live, ns
  uint64_t beat_at = 0;   // next Keep Alive
  uint64_t look_at = 0;   // next Identify of a target that does not report changes, ns
  uint64_t stale_at = 0;  // next look at the state of a path that is not usable, ns
  uint32_t event = 0;     // that has come and was not looked at yet
  uint32_t aborts = 0;    // under way
  bool beating = false, looking = false, stale = false;
  bool listening = false, heard = false;  // an event was asked for; it has come and was not looked at to the end
  int failed = 0;                         // errno: it is to be given up
  std::string why;                        // what() of the error, where there was one
  Command beat;
  Sqe look_next{};
  std::vector<uint8_t> page;  // that `look` fills
  iovec page_part{};

  bool usable() const { return live && (state == kAnaOptimized || state == kAnaNonOptimized); }
};

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  Engine(const NamespaceOptions& options, Events events);
  // Connects. Throws SysError.
  void Open(int stop);
  // Starts the thread, which changes what facts() gives. Throws SysError.
  void Start();
  // From any thread.
  void Submit(storage::Request* request);
  void Follow(std::vector<Address> found);
  void Stop();

  const NamespaceFacts& facts() const { return facts_; }
  const Controller& controller() const { return controller_; }
  std::atomic<uint64_t> size{0}, reconnects{0};
  std::atomic<uint32_t> paths{0}, addresses{0};
  std::atomic<Status> failure{kOk};
  std::atomic<int> lost{0};
  std::string LostWhy() const;
  Hops hops() const;
  uint32_t queues = 0, depth = 0;  // of the first association

 private:
  mutable std::mutex told_lock_;
  std::string why_;  // of the connection that was lost last
  Hops hops_;

  // engine.cc: the loop and the requests that come in
  void Run();
  void TakeNew();
  bool Turn(uint64_t now);
  void Sleep(uint64_t now);
  void Finish();

  // requests.cc
  void Admit(storage::Request* request);
  void Issue(uint64_t now);
  void Start(Task* task, Path& path, Queue& queue, uint64_t offset, uint32_t bytes, uint32_t tries, uint64_t now);
  void Build(Part& part, Task& task, Path& path);
  void Aim(Part& part) const;
  void Deallocate(Part& part) const;
  uint32_t Limit(storage::Op op, const Path& path) const;
  uint64_t Changes() const { return options_.replay ? unflushed_.Mark() : acknowledged_; }
  bool IssueAgain(uint64_t now);
  static void Done(Command* command, int err);
  void Ended(Part& part, int err);
  void Repeat(Part& part, uint64_t delay_ms, uint64_t now);
  void Acknowledged(Part& part);
  void PartOver(Task* task);
  void Complete(Task* task);
  void FailAll(int err);
  void FlushOwn();
  Part* NewPart();
  Queue* Pick(Path** path);

  // replay.cc
  bool Replay(uint64_t now);
  void ReplayPiece(const storage::Unflushed::Entry& entry, Path& path, Queue& queue, uint64_t now);
  void ReplayEnded(Part& part, int err);
  void ReplayFailed(uint32_t worth);
  void ReplayLost(const Path& path);

  // paths.cc
  void Tend(uint64_t now);
  void AddPaths(const std::vector<Address>& found);
  void DropPaths();
  void TendLive(Path& path, uint64_t now);
  void Begin(Path& path, uint64_t now);
  void Arrived(Path& path, uint64_t now);
  bool Accept(Attempt& attempt);
  void Adopt(Path& path, Attempt& attempt, uint64_t now);
  void Lose(Path& path, int err, uint64_t now);
  void Expire(Path& path, uint64_t now);
  void Abort(Path& path, Queue& queue, Command* command, uint64_t now);
  void Beat(Path& path, uint64_t now);
  void Listen(Path& path, uint64_t now);
  void TakeEvent(Path& path, uint64_t now);
  void Look(Path& path, const Sqe& sqe, size_t bytes, uint64_t now);
  void Looked(Path& path, const Sqe& what, bool good);
  void Availability(uint64_t now);
  void Backoff(Path& path, uint64_t now);
  void Resized(uint64_t bytes);

  const NamespaceOptions options_;
  const Events events_;
  NamespaceFacts facts_;
  Controller controller_;
  std::thread thread_;
  const std::shared_ptr<Fd> wake_;
  std::atomic<bool> sleeping_{false};

  std::mutex lock_;  // of what comes from other threads
  storage::Request* first_ = nullptr;
  storage::Request* last_ = nullptr;
  bool stop_ = false;
  std::optional<std::vector<Address>> found_;  // not looked at yet
  std::atomic<bool> news_{false};              // there is something behind the lock

  std::vector<std::unique_ptr<Path>> paths_;
  size_t turn_ = 0;
  std::deque<Task*> pending_;
  std::deque<Again> again_;
  std::deque<Part> part_store_;
  std::vector<Part*> part_free_;
  uint32_t writing_ = 0;  // writes, zeroes and flushes that are outstanding
  storage::Unflushed unflushed_;
  uint64_t acknowledged_ = 0;     // changes that are not kept there,
  uint64_t durable_ = 0;          // and those of them that a flush has covered
  bool maybe_lost_ = false;       // what was acknowledged: the next flush says so
  bool flushing_ = false;         // a flush of our own is under way
  bool replay_due_ = false;       // before anything else
  uint64_t replay_next_ = 0;      // number of an entry of unflushed_; 0: not begun
  uint64_t replay_at_ = 0;        // bytes of it that were sent
  uint32_t replay_failures_ = 0;  // since it was due
  uint64_t replay_since_ = 0;     // the first of it was sent, ns; 0: not yet
  bool replay_refused_ = false;   // the controller does not take an entry: what it forgot is lost
  std::vector<Part*> replaying_;
  uint64_t hold_until_ = 0;   // commands of a lost association may be carried out until then
  uint64_t alone_since_ = 0;  // no path is usable since then; 0: one is
  bool down_ = false;         // for so long that requests fail
  uint64_t tend_at_ = 0;
  bool look_at_admin_ = true;  // something may have come for an admin queue
  std::minstd_rand jitter_;
};

}  // namespace vioctl::nvme::host
