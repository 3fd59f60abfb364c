// The life of an export's connections, and of requests while there is none.
#include "storage/remote/nbd_engine.h"

#include <poll.h>

#include <algorithm>

#include "os/clock.h"
#include "os/eventfd.h"

namespace vioctl::storage::nbd {
namespace {

constexpr int kTickMs = 100;
constexpr uint64_t kFirstPause = 50 * os::kMs, kMostPause = 2'000 * os::kMs;  // between attempts to connect
// That a thread has to end: it asks ten times a second, and a resolver may keep it longer. The event loop may wait
// here.
constexpr auto kFarewell = std::chrono::milliseconds(300);
// A session that lasts so long is worth a line in the log, and a quick new one.
constexpr uint64_t kCalm = 10'000 * os::kMs;
// For an answer to the question for the size, and for a session that knows it.
constexpr uint64_t kAsk = 1'000 * os::kMs;
// A server that takes one client at a time gives no answer: it is asked less and less often.
constexpr uint64_t kFirstRest = 2'000 * os::kMs, kMostRest = 60'000 * os::kMs;
// What takes longer is sent again on the next session.
constexpr uint64_t kDrain = 1'000 * os::kMs;

// Whether a server that has come back lacks what hosts and guests were promised.
bool Lacks(const Facts& before, const Facts& now) {
  return now.minimum > std::max(before.minimum, 512u) || now.maximum < before.maximum || (before.flush && !now.flush) ||
         (before.fua && !now.fua) || (before.trim && !now.trim) || (before.zero && !now.zero) ||
         (before.extents && !now.extents);
}

}  // namespace

Engine::Engine(const NbdOptions& options, std::function<void(const char*, int)> tell,
               std::shared_ptr<Durability> durability)
    : api_(Api::Get()),
      options_(options),
      tell_(std::move(tell)),
      durability_(std::move(durability)),
      wake_(os::NewEventfd()) {}

void Engine::Begin(Request* request) {
  {
    std::lock_guard guard(lock_);
    if (!ended_) {
      incoming_.push_back(request);
      if (incoming_.size() == 1) os::SignalEventfd(wake_.get());
      return;
    }
  }
  request->result = ENOTCONN;
  request->done(request);
}

void Engine::Stop() {
  std::lock_guard guard(lock_);
  stop_ = true;
  os::SignalEventfd(wake_.get());
}

bool Engine::Wait() {
  std::unique_lock guard(lock_);
  return changed_.wait_for(guard, kFarewell, [this] { return ended_; });
}

void Engine::Reopen() {
  std::unique_lock guard(lock_);
  const uint64_t mine = ++reopens_;
  os::SignalEventfd(wake_.get());
  changed_.wait(guard, [&] { return reopened_ >= mine || ended_; });
}

void Engine::LookAtSize() {
  const uint64_t now = os::NowNs();
  uint64_t session = 0;
  const auto same = [&] { return connected_ && sessions_ == session && reopens_ == reopened_ && !stop_; };
  {
    std::lock_guard guard(lock_);
    session = sessions_;
    if (now < ask_next_ || !same()) return;  // the next session tells its size
  }
  bool right = false;
  try {
    const uint64_t bytes = AskSize(api_, options_.uri, now + kAsk, [&] {
      std::lock_guard guard(lock_);
      return same();
    });
    if (bytes != size()) {
      std::unique_lock guard(lock_);
      resizes_ = same();
      os::SignalEventfd(wake_.get());
      changed_.wait_for(guard, std::chrono::nanoseconds(kAsk), [&] { return !resizes_ || ended_; });
    }
    right = bytes == size();
  } catch (const SysError&) {
  }
  ask_pause_ = right ? 0 : std::clamp(ask_pause_ * 2, kFirstRest, kMostRest);
  ask_next_ = os::NowNs() + ask_pause_;
}

Facts Engine::Opened() {
  std::unique_lock guard(lock_);
  changed_.wait(guard, [this] { return opened_ || ended_; });
  if (refused_) throw *refused_;
  return first_;
}

void Engine::Run() {
  while (true) {
    uint64_t reopens = 0;
    bool resizes = false;
    {
      std::lock_guard guard(lock_);
      if (stop_) break;
      resizes = resizes_;
      if (reopens_ != reopened_) reopens = reopens_;
    }
    if (reopens != 0) {
      Renew();
      std::lock_guard guard(lock_);
      reopened_ = reopens;
      changed_.notify_all();
    }
    if (session_) {
      Serve(resizes);
    } else if (!Connected() && !opened_) {
      break;
    }
  }
  session_.reset();
  std::vector<Request*> left;
  {
    std::lock_guard guard(lock_);
    ended_ = true;
    left.swap(incoming_);
  }
  for (Request* request : left) actives_.push_back({.request = request});
  FailAll(ENOTCONN);
  std::lock_guard guard(lock_);
  changed_.notify_all();
}

// Ends the session, for a new one at once.
void Engine::Renew() {
  const bool failed = durability_->error() != 0;
  if (session_) Lose(nullptr, 0);
  // What was lost is lost, and told. While nothing was told, all that was acknowledged has to be there again.
  if (failed) {
    unflushed_.Clear();
    durability_->Clear();
  }
  next_try_ = 0;
}

// One attempt to connect, if it is time for one.
bool Engine::Connected() {
  const uint64_t now = os::NowNs();
  TakeIncoming();
  Expire();
  if (now < next_try_) {
    pollfd polled{wake_.get(), POLLIN, 0};
    ::poll(&polled, 1, static_cast<int>(std::min<uint64_t>((next_try_ - now) / os::kMs + 1, kTickMs)));
    if (polled.revents & POLLIN) os::TakeEventfd(wake_.get());
    return false;
  }
  try {
    session_.emplace(api_, options_.uri, now + options_.timeout_ms * os::kMs, [this] {
      TakeIncoming();
      Expire();
      std::lock_guard guard(lock_);
      return !stop_ && reopens_ == reopened_;
    });
    const Facts& facts = session_->facts();
    if (facts.readonly && !options_.readonly) throw SysError(EACCES, "connect");
    // What was promised to hosts and guests has to be there.
    if (opened_ && Lacks(first_, facts)) throw SysError(EPROTO, "connect");
  } catch (const SysError& error) {
    session_.reset();
    if (!opened_) {
      std::lock_guard guard(lock_);
      refused_ = error;
      return false;
    }
    if (error.err() == EPROTO && !std::exchange(told_changed_, true)) tell_("changed", 0);
    Pause();
    return false;
  }
  size_.store(session_->facts().size, std::memory_order_relaxed);
  loads_.fill(0);
  drained_by_ = 0;
  replayed_ = 0;
  replaying_ = !unflushed_.empty();
  connected_at_ = os::NowNs();
  if (opened_ && (told_ || down_)) tell_(replaying_ ? "replayed" : "back", 0);
  told_ = down_ = told_changed_ = false;
  std::lock_guard guard(lock_);
  if (!opened_) {
    first_ = session_->facts();
    fua_.store(first_.fua);
    opened_ = true;
  }
  connected_ = true;
  sessions_++;
  resizes_ = false;
  changed_.notify_all();
  return true;
}

void Engine::Serve(bool resizes) {
  TakeIncoming();
  if (!resizes || replaying_) {
    Pump();
  } else if (Drained()) {
    Lose(nullptr, 0);
    next_try_ = 0;
    return;
  }
  const bool alive = session_->Turn(wake_.get(), kTickMs);
  // What a connection that broke has completed with an error was not done for certain.
  if (!alive) return Lose("lost", 0);
  TakeCompleted();
  if (session_) Expire();
}

// Whether the session can end without anything to be sent or written again: nothing is on its way, and all that was
// acknowledged is durable.
bool Engine::Drained() {
  const uint64_t now = os::NowNs();
  if (drained_by_ == 0) drained_by_ = now + kDrain;
  // A shared export may not be written to again.
  if (now >= drained_by_ && !options_.shared) return true;
  if (!in_flight_.empty()) return false;
  if (durability_->error() != 0 || (options_.shared ? blind_ == blind_flushed_ : unflushed_.empty())) return true;
  FlushItself();
  return false;
}

// The session is over: all that was sent and not answered waits for the next one.
void Engine::Lose(const char* what, int err) {
  // Answers that came before the end count.
  std::vector<Piece*> answered;
  for (Piece* piece : completed_)
    if (piece->err == 0) answered.push_back(piece);
  completed_ = std::move(answered);
  TakeCompleted();
  session_.reset();
  {
    std::lock_guard guard(lock_);
    connected_ = false;
  }
  completed_.clear();
  // Other writers may have changed these blocks since: what is lost stays lost, and is told.
  if (blind_ != blind_flushed_) durability_->Fail(EIO);
  blind_flushed_ = blind_;
  own_flush_ = false;
  for (auto& piece : in_flight_)
    if (piece->active) {
      piece->err = 0;
      piece->zeroes = 0;
      queue_.push_front(std::move(piece));
    }
  in_flight_.clear();
  lost_at_ = os::NowNs();
  if (lost_at_ - connected_at_ >= kCalm) pause_ = 0;
  // A server that breaks every connection must not fill the log.
  if (what && lost_at_ - told_at_ >= kCalm) {
    told_ = true;
    told_at_ = lost_at_;
    tell_(what, err);
  }
  if (what) Pause();
}

// Before the next attempt to connect.
void Engine::Pause() {
  next_try_ = os::NowNs() + pause_;
  pause_ = std::clamp(pause_ * 2, kFirstPause, kMostPause);
}

void Engine::TakeIncoming() {
  std::vector<Request*> taken;
  {
    std::lock_guard guard(lock_);
    taken.swap(incoming_);
  }
  const uint64_t deadline = Deadline();
  for (Request* request : taken) {
    if (down_) {
      request->result = ENOTCONN;
      request->done(request);
      continue;
    }
    Active& active = actives_.emplace_back();
    active.request = request;
    active.deadline = deadline;
    Cut(active);
  }
}

uint64_t Engine::Deadline() const { return os::NowNs() + options_.timeout_ms * os::kMs; }

// Fails what has waited for too long.
void Engine::Expire() {
  const uint64_t now = os::NowNs();
  const auto late = [&](const auto& piece) {
    return now >= (piece->active ? piece->active->deadline : piece->deadline);
  };
  // What libnbd has, it may still write to: only the end of the connection takes that back.
  if (session_ && std::any_of(in_flight_.begin(), in_flight_.end(), late)) return Lose("silent", ETIMEDOUT);
  if (std::none_of(actives_.begin(), actives_.end(), [&](const Active& one) { return now >= one.deadline; })) return;
  if (!session_ && !down_ && opened_ && now - lost_at_ >= options_.timeout_ms * os::kMs) {
    down_ = true;
    tell_("down", 0);
  }
  std::erase_if(queue_, late);
  const int err = session_ ? ETIMEDOUT : ENOTCONN;
  for (auto at = actives_.begin(); at != actives_.end();) {
    auto one = at++;
    if (now < one->deadline) continue;
    Request* const request = one->request;
    request->result = one->err != 0 ? one->err : err;
    actives_.erase(one);
    request->done(request);
  }
}

void Engine::FailAll(int err) {
  queue_.clear();
  in_flight_.clear();
  while (!actives_.empty()) {
    Request* const request = actives_.front().request;
    actives_.pop_front();
    request->result = err;
    request->done(request);
  }
}

}  // namespace vioctl::storage::nbd
