// Paths of a host: attempts to connect, what keeps an association alive, events, and what is done when one is lost.
#include <algorithm>
#include <cstring>

#include "nvme/host/engine/engine.h"
#include "os/clock.h"
#include "os/thread.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint64_t kBackoffFirstMs = 50, kBackoffMs = 5'000;  // between attempts: doubled up to the second
constexpr uint64_t kSettledMs = 5'000;                        // a path that has lived so long did not break at once
constexpr uint64_t kAbortGraceMs = 5'000;                     // for a command that was aborted, before all is given up
constexpr uint64_t kLookMs = 10'000;     // between looks at the size, if the target does not tell of changes
constexpr uint64_t kStaleMs = 200;       // between looks at the state of a path that has refused commands
constexpr uint32_t kEventKind = 0xffff;  // type and information of an event

}  // namespace

void Engine::Tend(uint64_t now) {
  DropPaths();
  for (const auto& path : paths_) {
    if (path->attempt && path->attempt->over.load(std::memory_order_acquire)) Arrived(*path, now);
    if (path->live)
      TendLive(*path, now);
    else if (!path->attempt && now >= path->retry_at && options_.loss_ms > 0)
      Begin(*path, now);
  }
  Availability(now);
}

void Engine::TendLive(Path& path, uint64_t now) {
  Expire(path, now);
  if (path.failed != 0) return;
  if (now >= path.beat_at) Beat(path, now);
  if (!path.listening) Listen(path, now);
  if (path.looking) return;
  const Controller& controller = path.live->controller();
  if (path.event != 0) {
    TakeEvent(path, now);
  } else if (path.stale && now >= path.stale_at && controller.groups > 0) {
    path.stale = false;
    Look(path, LogSqe(kLidAna, static_cast<uint32_t>(AnaLogSize(controller)), 1), AnaLogSize(controller), now);
  } else if (!controller.namespace_events && now >= path.look_at) {
    path.look_at = now + kLookMs * os::kMs;
    Look(path, IdentifySqe(kCnsNamespace, facts_.nsid), sizeof(IdNamespace), now);
  }
}

// Addresses that a discovery service names now. Those that it does not name any more go when they are lost.
void Engine::AddPaths(const std::vector<Address>& found) {
  for (const auto& path : paths_)
    path->wanted = path->given || std::find(found.begin(), found.end(), path->address) != found.end();
  for (const Address& address : found) {
    const auto same = [&](const auto& path) { return path->address == address; };
    if (paths_.size() >= kMaxPaths || std::any_of(paths_.begin(), paths_.end(), same)) continue;
    paths_.push_back(std::make_unique<Path>());
    paths_.back()->address = address;
    paths_.back()->given = false;
  }
  addresses.store(static_cast<uint32_t>(paths_.size()));
  tend_at_ = 0;
}

void Engine::DropPaths() {
  std::erase_if(paths_, [](const auto& path) {
    if (path->wanted || path->live) return false;
    if (path->attempt) os::SignalPeer(path->attempt->stop.get(), true);
    return true;
  });
  addresses.store(static_cast<uint32_t>(paths_.size()));
}

// --- connecting

void Engine::Begin(Path& path, uint64_t now) {
  try {
    path.attempt = std::make_shared<Attempt>();
  } catch (const std::exception&) {
    return Backoff(path, now);  // no descriptor or no memory is left
  }
  path.attempt->wake = wake_;
  const auto body = [attempt = path.attempt, options = options_, nsid = facts_.nsid, address = path.address] {
    try {
      const Wait wait{os::NowNs() + options.timeout_ms * os::kMs, attempt->stop.get()};
      attempt->made = Association::Connect(options, address, attempt->stop.get());
      if (attempt->made->io().empty()) throw SysError(ENXIO, "nvme");
      attempt->facts = attempt->made->Identify(nsid, wait);
      attempt->state = attempt->made->StateOf(attempt->facts.group, wait);
    } catch (const SysError& error) {
      attempt->err = error.err();
      attempt->made.reset();
    } catch (const std::exception&) {
      attempt->err = ENOMEM;
      attempt->made.reset();
    }
    attempt->over.store(true, std::memory_order_release);
    os::SignalPeer(attempt->wake->get(), true);
  };
  try {
    os::StartThread(body).detach();
  } catch (const SysError& error) {
    path.attempt->err = error.err();
    path.attempt->over.store(true);
  }
}

void Engine::Arrived(Path& path, uint64_t now) {
  const std::shared_ptr<Attempt> attempt = std::move(path.attempt);
  path.attempt.reset();
  if (attempt->made && Accept(*attempt)) {
    reconnects.fetch_add(1);
    return Adopt(path, *attempt, now);
  }
  Backoff(path, now);
}

// Whether this is the namespace that was opened.
bool Engine::Accept(Attempt& attempt) {
  const bool same = attempt.facts.Same(facts_) && (facts_.readonly || !attempt.facts.readonly);
  const bool loop = options_.refuse_own && HopsOf(attempt.facts.raw).loop();
  if (same && !loop) return true;
  if (events_.news) events_.news(loop ? "loop" : "changed", 0);
  return false;
}

void Engine::Backoff(Path& path, uint64_t now) {
  // No pause may take the time in which requests wait for this path.
  const uint64_t most = down_ ? kBackoffMs : std::clamp(options_.loss_ms / 4, kBackoffFirstMs, kBackoffMs);
  const uint64_t delay = std::min(most, kBackoffFirstMs << std::min(path.failures, 10u));
  path.failures++;
  // Hosts that were lost together do not come back together.
  path.retry_at = now + (delay / 2 + jitter_() % (delay + 1)) * os::kMs;
}

void Engine::Adopt(Path& path, Attempt& attempt, uint64_t now) {
  path.live = std::move(attempt.made);
  path.state = attempt.state;
  path.since = now;
  path.failed = 0;
  path.aborts = 0;
  path.beating = path.looking = path.listening = path.heard = path.stale = false;
  path.event = 0;
  path.look_next = {};
  path.stale_at = now;
  path.beat_at = now + options_.keep_alive_ms / 2 * os::kMs;
  path.look_at = now + kLookMs * os::kMs;
  // From now on its cache is the one that counts: it may have become volatile, not the other way round.
  controller_.volatile_cache |= path.live->controller().volatile_cache;
  paths.fetch_add(1);
  {
    std::lock_guard lock(told_lock_);
    hops_ = HopsOf(attempt.facts.raw);
  }
  Resized(attempt.facts.size());
  Availability(now);
}

void Engine::Resized(uint64_t bytes) {
  if (size.exchange(bytes) != bytes && events_.resized) events_.resized(bytes);
}

// --- losing

std::string Engine::LostWhy() const {
  std::lock_guard lock(told_lock_);
  return why_;
}

Hops Engine::hops() const {
  std::lock_guard lock(told_lock_);
  return hops_;
}

void Engine::Lose(Path& path, int err, uint64_t now) {
  const std::unique_ptr<Association> live = std::move(path.live);
  ReplayLost(path);
  const uint32_t quiesce = writing_ > 0 ? live->controller().quiesce_ms : 0;
  // What is outstanding asks to be repeated, on another path or on this one when it is back.
  for (const auto& queue : live->io()) queue->Fail(ECONNRESET);
  live->admin().Fail(ECONNRESET);
  path.failed = 0;
  {
    std::lock_guard lock(told_lock_);
    why_ = std::exchange(path.why, {});
  }
  paths.fetch_sub(1);
  lost.store(err);
  if (quiesce > 0) hold_until_ = std::max(hold_until_, now + quiesce * os::kMs);
  if (!unflushed_.empty()) {
    replay_due_ = true;
    replay_next_ = 0;
  }
  if (acknowledged_ > durable_) maybe_lost_ = true;
  // At once, unless it breaks whenever it is asked for something.
  if (path.failures == 0 || now - path.since >= kSettledMs * os::kMs) {
    path.failures = 1;
    path.retry_at = now;
  } else {
    Backoff(path, now);
  }
  tend_at_ = 0;
  if (events_.news) events_.news(err == ETIMEDOUT ? "silent" : "lost", err);
  Availability(now);
}

// Whether requests can be done, and for how long they could not be.
void Engine::Availability(uint64_t now) {
  const bool usable = std::any_of(paths_.begin(), paths_.end(), [](const auto& path) { return path->usable(); });
  if (usable) {
    if (alone_since_ != 0 && events_.news) events_.news("back", 0);
    alone_since_ = 0;
    down_ = false;
    return;
  }
  if (alone_since_ == 0) alone_since_ = now;
  if (now - alone_since_ < options_.loss_ms * os::kMs) return;
  if (!down_ && events_.news) events_.news("down", 0);
  down_ = true;
  replay_since_ = 0;
  FailAll(ENOTCONN);
}

void Engine::Expire(Path& path, uint64_t now) {
  for (const auto& queue : path.live->io())
    queue->Expired(now, [&](Command* command) {
      if (!command->aborted && path.aborts < path.live->controller().aborts)
        Abort(path, *queue, command, now);
      else
        path.failed = ETIMEDOUT;
    });
  path.live->admin().Expired(now, [&](Command*) { path.failed = ETIMEDOUT; });
}

// Asks the controller to give a command up that takes too long. If it does not end then, nothing can be known of it.
void Engine::Abort(Path& path, Queue& queue, Command* command, uint64_t now) {
  if (path.live->admin().full()) {
    path.failed = ETIMEDOUT;
    return;
  }
  const uint64_t grace = std::min(options_.timeout_ms, kAbortGraceMs) * os::kMs;
  command->aborted = true;
  command->deadline = now + grace;
  auto* abort = new Command;
  abort->sqe.opcode = kAbort;
  abort->sqe.cdw10 = queue.qid() | static_cast<uint32_t>(command->cid) << 16;
  abort->timeout = grace;
  abort->owner = &path;
  abort->done = [](Command* done, int) {
    static_cast<Path*>(done->owner)->aborts--;
    delete done;
  };
  path.aborts++;
  path.live->admin().Submit(abort, now);
}

// --- what keeps it alive, and what it tells

void Engine::Beat(Path& path, uint64_t now) {
  const uint64_t period = options_.keep_alive_ms * os::kMs;
  path.beat_at = period == 0 || !path.live->controller().keep_alive ? UINT64_MAX : now + period / 2;
  if (path.beat_at == UINT64_MAX || path.beating || path.live->admin().full()) return;
  path.beat = {};
  path.beat.sqe.opcode = kKeepAlive;
  path.beat.timeout = std::min(options_.timeout_ms * os::kMs, period);
  path.beat.owner = &path;
  path.beat.done = [](Command* done, int err) {
    auto* of = static_cast<Path*>(done->owner);
    of->beating = false;
    if (err == 0 && done->status() != kOk) of->failed = ECONNRESET;
  };
  path.beating = true;
  path.live->admin().Submit(&path.beat, now);
}

void Engine::Listen(Path& path, uint64_t now) {
  const Controller& controller = path.live->controller();
  if (path.live->admin().full()) return;
  path.listening = true;
  if (!controller.namespace_events && !controller.ana_events) return;
  struct Event : Command {
    Engine* engine;
    Path* path;
  };
  auto* event = new Event;
  event->engine = this;
  event->path = &path;
  event->sqe.opcode = kAsyncEventRequest;
  event->done = [](Command* done, int err) {
    const std::unique_ptr<Event> own(static_cast<Event*>(done));
    if (err != 0 || own->status() != kOk) return;  // it takes none: the size is asked for from time to time
    own->path->event = static_cast<uint32_t>(own->cqe.result);
    own->path->heard = true;
    own->engine->tend_at_ = 0;
  };
  path.live->admin().Submit(event, now);
}

// Reads what an event is about. The next one is asked for after that (Looked()).
void Engine::TakeEvent(Path& path, uint64_t now) {
  const uint32_t kind = std::exchange(path.event, 0) & kEventKind;
  const Controller& controller = path.live->controller();
  if (kind == (kEventNamespace & kEventKind)) {
    path.look_next = IdentifySqe(kCnsNamespace, facts_.nsid);
    Look(path, LogSqe(kLidChangedNamespaces, sizeof(IdNamespace)), sizeof(IdNamespace), now);
  } else if (kind == (kEventAna & kEventKind) && controller.groups > 0) {
    Look(path, LogSqe(kLidAna, static_cast<uint32_t>(AnaLogSize(controller)), 1), AnaLogSize(controller), now);
  } else {
    path.listening = path.heard = false;
  }
}

// Reads something into the path's page. The admin queue has room: at most a beat, an event and aborts are there too.
void Engine::Look(Path& path, const Sqe& sqe, size_t bytes, uint64_t now) {
  if (path.live->admin().full()) {
    path.failed = EPROTO;
    return;
  }
  path.page.assign(bytes, 0);
  path.page_part = {path.page.data(), bytes};
  struct Page : Command {
    Engine* engine;
    Path* path;
  };
  auto* page = new Page;
  page->engine = this;
  page->path = &path;
  page->sqe = sqe;
  page->parts = &path.page_part;
  page->count = 1;
  page->length = static_cast<uint32_t>(bytes);
  page->direction = kToHost;
  page->timeout = options_.timeout_ms * os::kMs;
  page->done = [](Command* done, int err) {
    const std::unique_ptr<Page> own(static_cast<Page*>(done));
    own->path->looking = false;
    if (err == 0 || err == EBADMSG) own->engine->Looked(*own->path, own->sqe, err == 0 && own->status() == kOk);
  };
  path.looking = true;
  path.live->admin().Submit(page, now);
}

// Takes what was read, and reads the next thing, or asks for the next event.
void Engine::Looked(Path& path, const Sqe& what, bool good) {
  const uint64_t now = os::NowNs();
  if (good && what.opcode == kIdentify) {
    IdNamespace data;
    memcpy(&data, path.page.data(), sizeof data);
    try {
      const NamespaceFacts facts = ParseNamespace(facts_.nsid, data);
      if (facts.block_size == facts_.block_size) Resized(facts.size());
      facts_.group = facts.group;
    } catch (const SysError&) {
      // It is gone, or makes no sense any more: commands say so.
    }
  } else if (what.opcode == kGetLogPage && (what.cdw10 & 0xff) == kLidAna) {
    if (good) path.state = ParseAna(path.page.data(), path.page.size(), facts_.group);
    path.stale = path.stale || !path.usable();  // it is looked at until it is good again
    path.stale_at = now + kStaleMs * os::kMs;
    Availability(now);
  }
  if (path.look_next.opcode != 0) {
    const Sqe next = std::exchange(path.look_next, Sqe{});
    return Look(path, next, sizeof(IdNamespace), now);
  }
  if (path.heard && path.event == 0) path.listening = path.heard = false;
}

}  // namespace vioctl::nvme::host
