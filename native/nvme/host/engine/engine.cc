#include "nvme/host/engine/engine.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>

#include "os/clock.h"
#include "os/thread.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint64_t kTendMs = 20;  // between two looks at clocks, while something is outstanding
constexpr uint64_t kIdleMs = 200;
constexpr size_t kMaxWaiting = 65'536;  // requests that wait for a path: more are EAGAIN
constexpr size_t kNamed = 8;            // namespaces that an error names

uint32_t OnlyNamespace(Association& association, const Wait& wait) {
  const std::vector<uint32_t> all = association.Namespaces(wait);
  if (all.size() == 1) return all[0];
  std::string names = std::to_string(all.size());
  for (size_t i = 0; i < std::min(all.size(), kNamed); i++) names += (i == 0 ? ": " : ", ") + std::to_string(all[i]);
  throw SysError(ENOTUNIQ, "namespaces", names);
}

}  // namespace

Engine::Engine(const NamespaceOptions& options, Events events)
    : options_(options),
      events_(std::move(events)),
      wake_(std::make_shared<Fd>(os::NewEventfd())),
      jitter_(static_cast<uint32_t>(os::NowNs())) {
  for (const Address& address : options.addresses) {
    paths_.push_back(std::make_unique<Path>());
    paths_.back()->address = address;
  }
  AddPaths(options.found);
}

void Engine::Open(int stop) {
  if (paths_.empty()) throw SysError(EINVAL, "nvme", "no address");
  std::exception_ptr first;
  for (const auto& path : paths_) {
    Attempt attempt;
    try {
      const Wait wait{os::NowNs() + options_.timeout_ms * os::kMs, stop};
      attempt.made = Association::Connect(options_, path->address, stop);
      if (attempt.made->io().empty()) throw SysError(ENXIO, "nvme", "the controller granted no I/O queue");
      const uint32_t nsid = options_.nsid != 0 ? options_.nsid : OnlyNamespace(*attempt.made, wait);
      attempt.facts = attempt.made->Identify(nsid, wait);
      if (options_.refuse_own && HopsOf(attempt.facts.raw).loop())
        throw SysError(ELOOP, "nvme", "requests would come back to this process");
      attempt.state = attempt.made->StateOf(attempt.facts.group, wait);
    } catch (const SysError& error) {
      if (!first) first = std::current_exception();
      if (error.err() == ECANCELED) break;
      continue;
    }
    facts_ = attempt.facts;
    controller_ = attempt.made->controller();
    size.store(facts_.size());
    queues = static_cast<uint32_t>(attempt.made->io().size());
    depth = attempt.made->io().front()->depth();
    Adopt(*path, attempt, os::NowNs());
    return;
  }
  std::rethrow_exception(first);
}

void Engine::Start() {
  thread_ = os::StartThread([engine = shared_from_this()] { engine->Run(); });
}

void Engine::Submit(storage::Request* request) {
  request->link = nullptr;
  {
    std::lock_guard guard(lock_);
    if (!stop_) {
      (last_ ? last_->link : first_) = request;
      last_ = request;
      news_.store(true, std::memory_order_seq_cst);
      request = nullptr;
      // Under the lock: as soon as its thread can take the request, whoever asks may let go of this engine.
      if (sleeping_.exchange(false)) os::SignalPeer(wake_->get(), true);
    }
  }
  if (request) {
    request->result = ESHUTDOWN;
    request->done(request);
  }
}

void Engine::Follow(std::vector<Address> found) {
  {
    std::lock_guard guard(lock_);
    found_ = std::move(found);
    news_.store(true);
  }
  os::SignalPeer(wake_->get(), true);
}

void Engine::Stop() {
  {
    std::lock_guard guard(lock_);
    stop_ = true;
    news_.store(true);
  }
  os::SignalPeer(wake_->get(), true);
  if (!thread_.joinable()) return;
  // Whoever lets go of a host in done() of a request does so on this thread.
  if (thread_.get_id() == std::this_thread::get_id())
    thread_.detach();
  else
    thread_.join();
}

void Engine::Run() {
  ::pthread_setname_np(::pthread_self(), "vioctl-host");
  uint64_t busy = os::NowNs();
  while (true) {
    if (news_.load(std::memory_order_relaxed)) {
      bool stop = false;
      {
        std::lock_guard guard(lock_);
        stop = stop_;
      }
      if (stop) break;
      TakeNew();
    }
    const uint64_t now = os::NowNs();
    if (Turn(now)) {
      busy = now;
      continue;
    }
    if (now - busy < options_.spin_us * 1000ull) continue;
    Sleep(now);
  }
  Finish();
}

void Engine::TakeNew() {
  storage::Request* request;
  std::optional<std::vector<Address>> found;
  {
    std::lock_guard guard(lock_);
    request = std::exchange(first_, nullptr);
    last_ = nullptr;
    found = std::exchange(found_, std::nullopt);
    news_.store(stop_, std::memory_order_relaxed);
  }
  if (found) AddPaths(*found);
  while (request) Admit(std::exchange(request, request->link));
}

void Engine::Admit(storage::Request* request) {
  request->link = nullptr;
  const uint64_t length = request->op == storage::Op::kFlush ? 0 : request->length;
  const uint64_t mask = facts_.block_size - 1;
  int err = 0;
  if ((request->offset | length) & mask) err = EINVAL;
  if (down_) err = ENOTCONN;
  if (pending_.size() >= kMaxWaiting) err = EAGAIN;
  // A hint that the controller does not take is followed by doing nothing.
  const bool nothing = request->op == storage::Op::kDiscard && !controller_.can_discard;
  if (err != 0 || nothing || (request->op != storage::Op::kFlush && length == 0)) {
    request->result = err;
    return request->done(request);
  }
  auto* task = new Task;
  task->request = request;
  task->op = request->op;
  task->next = request->offset;
  task->end = request->offset + length;
  pending_.push_back(task);
}

// One round: what can be sent is sent, and what has come is taken. True if anything happened.
bool Engine::Turn(uint64_t now) {
  bool any = false;
  if (now >= tend_at_) {
    Tend(now);
    tend_at_ = now + kTendMs * os::kMs;
    look_at_admin_ = true;
  }
  Issue(now);
  for (const auto& path : paths_) {
    if (!path->live) continue;
    try {
      for (const auto& queue : path->live->io()) {
        if (queue->sending()) any |= queue->Flush();
        any |= queue->Receive();
      }
      Queue& admin = path->live->admin();
      if (admin.sending()) any |= admin.Flush();
      if (look_at_admin_) any |= admin.Receive();
    } catch (const SysError& error) {
      path->failed = error.err();
      path->why = error.what();
    }
    if (path->failed != 0) {
      Lose(*path, path->failed, now);
      any = true;
    }
  }
  look_at_admin_ = false;
  return any;
}

void Engine::Sleep(uint64_t now) {
  std::vector<pollfd> fds;
  fds.push_back({wake_->get(), POLLIN, 0});
  bool busy = !again_.empty() || !pending_.empty();
  bool ready = false;
  for (const auto& path : paths_) {
    if (!path->live) {
      busy = true;
      continue;
    }
    const auto add = [&](Queue& queue) {
      fds.push_back({queue.fd(), static_cast<short>(POLLIN | (queue.sending() ? POLLOUT : 0)), 0});
      ready |= queue.pending() && !queue.sending();  // what has to leave first is waited for
    };
    for (const auto& queue : path->live->io()) {
      busy |= queue->outstanding() > 0;
      add(*queue);
    }
    add(path->live->admin());
  }
  if (ready) return;
  uint64_t until = now + (busy ? kTendMs : kIdleMs) * os::kMs;
  for (const Again& again : again_)
    if (again.at > now) until = std::min(until, again.at);
  sleeping_.store(true);
  if (!news_.load()) {
    const auto ms = static_cast<int>((until - now) / os::kMs + 1);
    ::poll(fds.data(), fds.size(), ms);
  }
  sleeping_.store(false);
  look_at_admin_ = true;
  if (fds[0].revents) os::ClearPeer(wake_->get());
}

// The end: everybody is answered, attempts are left to themselves, controllers are shut down.
void Engine::Finish() {
  for (const auto& path : paths_) {
    if (path->attempt) os::SignalPeer(path->attempt->stop.get(), true);
    if (!path->live) continue;
    for (const auto& queue : path->live->io()) queue->Fail(ESHUTDOWN);
    path->live->admin().Fail(ESHUTDOWN);
  }
  TakeNew();
  FailAll(ESHUTDOWN);
  for (const auto& path : paths_) {
    if (path->live && path->failed == 0) path->live->Shutdown({os::NowNs() + options_.timeout_ms * os::kMs, -1});
    path->live.reset();
  }
}

}  // namespace vioctl::nvme::host
