// One thread for each export keeps its connections, sends what is asked and takes answers. What was sent on a
// connection that is lost is sent again on the next one, after what the server may have forgotten (unflushed.h).
#include "storage/remote/nbd.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <list>

#include "common/error.h"
#include "os/clock.h"
#include "os/eventfd.h"
#include "os/thread.h"
#include "storage/remote/nbd_session.h"
#include "storage/remote/remote.h"
#include "storage/remote/unflushed.h"

namespace vioctl::storage {
namespace {

using nbd::Api;
using nbd::Session;

constexpr uint64_t kMs = 1'000'000;
constexpr int kTickMs = 100;
constexpr uint32_t kPieceBytes = 1 << 20;     // data of a command at most
constexpr uint64_t kRangeBytes = 1ull << 30;  // of a discard or write of zeroes that has no data
constexpr uint32_t kInFlight = 64;            // commands of a connection
constexpr uint32_t kReplayed = 16;            // commands at a time that are sent again
constexpr uint64_t kFirstPause = 50 * kMs, kMostPause = 2'000 * kMs;  // between attempts to connect
constexpr auto kFarewell = std::chrono::seconds(2);  // that a thread has to end; a resolver may keep it longer

constexpr uint64_t kCalm =
    10'000 * kMs;  // a session that lasts so long is worth a line in the log, and a quick new one

// Copies between one buffer and several parts, of which the first `at` bytes are skipped.
template <typename Copy>
void Through(const iovec* part, uint64_t at, uint64_t length, Copy copy) {
  for (; at >= part->iov_len; part++) at -= part->iov_len;
  for (uint64_t done = 0; done < length; part++, at = 0) {
    const uint64_t some = std::min<uint64_t>(length - done, part->iov_len - at);
    copy(static_cast<std::byte*>(part->iov_base) + at, done, some);
    done += some;
  }
}
void CopyFrom(const iovec* parts, uint64_t at, std::byte* to, uint64_t length) {
  Through(parts, at, length, [to](std::byte* part, uint64_t done, uint64_t some) { memcpy(to + done, part, some); });
}
void CopyTo(const std::byte* from, const iovec* parts, uint64_t at, uint64_t length) {
  Through(parts, at, length,
          [from](std::byte* part, uint64_t done, uint64_t some) { memcpy(part, from + done, some); });
}

// Whether a server that has come back lacks what hosts and guests were promised.
bool Lacks(const nbd::Facts& before, const nbd::Facts& now) {
  return now.minimum > std::max(before.minimum, 512u) || now.maximum < before.maximum || (before.flush && !now.flush) ||
         (before.fua && !now.fua) || (before.trim && !now.trim) || (before.zero && !now.zero) ||
         (before.extents && !now.extents);
}

// A request, and the commands that it became.
struct Active {
  Request* request = nullptr;
  uint64_t deadline = 0;
  uint32_t left = 0;  // commands
  int err = 0;
  bool hole = false;  // asks whether the range is one before it writes zeroes there
};

class Engine;

// One command to the server.
struct Piece {
  Engine* engine = nullptr;
  Active* active = nullptr;  // none: of the engine itself
  Op op = Op::kRead;
  bool durable = false, deallocate = false, look = false;  // look: asks for holes
  uint64_t offset = 0, length = 0;
  std::byte* data = nullptr;       // where it is read to, or written from
  std::vector<std::byte> bounced;  // the data, if it lies in several places
  uint64_t at = 0;                 // in the request's data
  uint64_t skip = 0, wanted = 0;   // of a read that was widened to whole blocks of the server
  size_t connection = 0;
  uint64_t mark = 0;    // of a flush: what it makes durable
  bool replay = false;  // data of Unflushed
  uint64_t zeroes = 0;  // of a look: bytes that are a hole
  int err = 0;
};

class Engine {
 public:
  Engine(const NbdOptions& options, std::function<void(const char*, int)> tell, std::shared_ptr<Durability> durability)
      : api_(Api::Get()),
        options_(options),
        tell_(std::move(tell)),
        durability_(std::move(durability)),
        wake_(os::NewEventfd()) {}

  // On the engine's thread, until Stop().
  void Run();
  // Waits for the first connection. Throws SysError.
  nbd::Facts Opened();
  void Begin(Request* request);
  void Stop();
  bool Wait();  // for the end of Run(); false if it takes too long
  void Reopen();

  uint64_t size() const { return size_.load(std::memory_order_relaxed); }
  bool fua() const { return fua_.load(std::memory_order_relaxed); }

 private:
  bool Connected();
  void Pause();
  void Serve();
  void Lose(const char* what, int err);
  void TakeIncoming();
  void Cut(Active& active);
  void Add(Active& active, Op op, uint64_t at, uint64_t offset, uint64_t length);
  void Pump();
  bool Replay();
  bool Overlaps(const Unflushed::Entry& entry) const;
  bool Send(std::unique_ptr<Piece> piece);
  int64_t Issue(Piece& piece, nbd::Handle* handle);
  void FlushItself();
  void TakeCompleted();
  void Completed(std::unique_ptr<Piece> piece);
  void Looked(Piece& piece);
  void Settle(Active* active, int err);
  void Finish(Active* active);
  void Expire();
  void FailAll(int err);
  bool Room() const { return unflushed_.bytes() < Unflushed::kMost; }

  static int Done(void* user, int* error);
  static int Extent(void* user, const char* context, uint64_t offset, uint32_t* entries, size_t count, int* error);

  const Api& api_;
  const NbdOptions options_;
  const std::function<void(const char*, int)> tell_;
  const std::shared_ptr<Durability> durability_;
  const Fd wake_;
  std::atomic<uint64_t> size_{0};
  std::atomic<bool> fua_{false};

  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<Request*> incoming_;
  bool stop_ = false, reopen_ = false, opened_ = false, ended_ = false;
  std::optional<SysError> refused_;

  // Of the thread.
  std::optional<Session> session_;
  nbd::Facts first_;
  std::list<Active> actives_;
  std::deque<std::unique_ptr<Piece>> queue_;
  std::vector<std::unique_ptr<Piece>> in_flight_;
  std::vector<Piece*> completed_;
  std::array<uint32_t, Session::kConnections> loads_{};
  Unflushed unflushed_;
  size_t replayed_ = 0;  // entries of it that were sent to this session
  bool replaying_ = false, own_flush_ = false, changed_blind_ = false;
  uint64_t connected_at_ = 0, lost_at_ = 0, told_at_ = 0;
  bool down_ = false, told_ = false, told_changed_ = false;
  uint64_t pause_ = 0, next_try_ = 0;
};

int Engine::Done(void* user, int* error) {
  auto* piece = static_cast<Piece*>(user);
  piece->err = *error;
  piece->engine->completed_.push_back(piece);
  return 1;  // libnbd forgets it
}

int Engine::Extent(void* user, const char* context, uint64_t, uint32_t* entries, size_t count, int*) {
  auto* piece = static_cast<Piece*>(user);
  if (strcmp(context, nbd::kAllocation) != 0) return 0;
  constexpr uint32_t kHole = nbd::kExtentHole | nbd::kExtentZero;
  for (size_t i = 0; i + 1 < count && (entries[i + 1] & kHole) == kHole; i += 2) piece->zeroes += entries[i];
  return 0;
}

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
  std::lock_guard guard(lock_);
  reopen_ = true;
  os::SignalEventfd(wake_.get());
}

nbd::Facts Engine::Opened() {
  std::unique_lock guard(lock_);
  changed_.wait(guard, [this] { return opened_ || ended_; });
  if (refused_) throw *refused_;
  return first_;
}

void Engine::Run() {
  while (true) {
    bool reopens = false;
    {
      std::lock_guard guard(lock_);
      if (stop_) break;
      if (reopen_) {
        reopen_ = false;
        reopens = true;
      }
    }
    if (reopens) {
      if (session_) Lose(nullptr, 0);
      unflushed_.Clear();
      durability_->Clear();
      next_try_ = 0;
    }
    if (session_) {
      Serve();
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

// One attempt to connect, if it is time for one.
bool Engine::Connected() {
  const uint64_t now = os::NowNs();
  TakeIncoming();
  Expire();
  if (now < next_try_) {
    pollfd polled{wake_.get(), POLLIN, 0};
    ::poll(&polled, 1, static_cast<int>(std::min<uint64_t>((next_try_ - now) / kMs + 1, kTickMs)));
    if (polled.revents & POLLIN) os::TakeEventfd(wake_.get());
    return false;
  }
  try {
    session_.emplace(api_, options_.uri, now + options_.timeout_ms * kMs, [this] {
      TakeIncoming();
      Expire();
      std::lock_guard guard(lock_);
      return !stop_;
    });
    const nbd::Facts& facts = session_->facts();
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
    changed_.notify_all();
  }
  return true;
}

void Engine::Serve() {
  TakeIncoming();
  Pump();
  const bool alive = session_->Turn(wake_.get(), kTickMs);
  // What a connection that broke has completed with an error was not done for certain.
  if (!alive) return Lose("lost", 0);
  TakeCompleted();
  if (session_) Expire();
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
  completed_.clear();
  if (changed_blind_) {
    // Other writers may have changed these blocks since: what is lost stays lost, and is told.
    durability_->Fail(EIO);
    changed_blind_ = false;
  }
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
  const uint64_t deadline = os::NowNs() + options_.timeout_ms * kMs;
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

// Makes commands of a request.
void Engine::Cut(Active& active) {
  const Request& request = *active.request;
  const nbd::Facts& facts = first_;
  active.left = 1;  // held until all are made
  const uint64_t most = std::min<uint64_t>(kPieceBytes, facts.maximum / facts.minimum * facts.minimum);
  const bool data = request.op == Op::kRead || request.op == Op::kWrite;
  if (request.op == Op::kFlush) {
    if (facts.flush) Add(active, Op::kFlush, 0, 0, 0);
  } else if (request.op == Op::kWrite && options_.zero != ZeroMode::kWrite && request.length >= kZeroMinimum &&
             request.length <= kRangeBytes && AllZero(request.parts, request.count) &&
             (options_.zero == ZeroMode::kUnmap ? facts.zero : facts.extents)) {
    active.hole = options_.zero != ZeroMode::kUnmap;
    Add(active, Op::kZero, 0, request.offset, request.length);
  } else if (request.op == Op::kDiscard && !facts.trim) {
    // A hint that the server does not take.
  } else {
    const bool bare = !data && (request.op == Op::kDiscard || facts.zero);
    for (uint64_t at = 0; at < request.length;) {
      const uint64_t length = std::min(request.length - at, bare ? kRangeBytes : most);
      Add(active, request.op, at, request.offset + at, length);
      at += length;
    }
  }
  Settle(&active, 0);
}

void Engine::Add(Active& active, Op op, uint64_t at, uint64_t offset, uint64_t length) {
  const Request& request = *active.request;
  auto piece = std::make_unique<Piece>();
  piece->engine = this;
  piece->active = &active;
  piece->op = op;
  piece->at = at;
  piece->offset = offset;
  piece->length = length;
  piece->durable = request.durable;
  piece->look = active.hole;
  piece->deallocate = request.deallocate || (request.op == Op::kWrite && !active.hole);
  active.left++;
  if (op == Op::kZero && !active.hole && !first_.zero) {
    piece->op = Op::kWrite;
    piece->bounced.resize(length);
    piece->data = piece->bounced.data();
  } else if (op == Op::kRead && ((offset | length) & (first_.minimum - 1)) != 0) {
    const uint64_t mask = first_.minimum - 1;
    piece->offset = offset & ~mask;
    piece->skip = offset - piece->offset;
    piece->length = (piece->skip + length + mask) & ~mask;
    piece->wanted = length;
    piece->bounced.resize(piece->length);
    piece->data = piece->bounced.data();
  } else if (op == Op::kRead || op == Op::kWrite) {
    uint64_t before = at;
    int part = 0;
    while (before >= request.parts[part].iov_len) before -= request.parts[part++].iov_len;
    if (request.parts[part].iov_len - before >= length) {
      piece->data = static_cast<std::byte*>(request.parts[part].iov_base) + before;
    } else {
      piece->bounced.resize(length);
      piece->data = piece->bounced.data();
      if (op == Op::kWrite) CopyFrom(request.parts, at, piece->data, length);
    }
  }
  queue_.push_back(std::move(piece));
}

// Sends what there is room for.
void Engine::Pump() {
  if (replaying_ && !Replay()) return;
  if (unflushed_.bytes() > Unflushed::kMuch) FlushItself();
  // Writes wait while too much is unflushed; what is behind them does not.
  for (size_t i = 0; i < queue_.size();) {
    const Op op = queue_[i]->op;
    if (op != Op::kRead && op != Op::kFlush && !Room()) {
      i++;
      continue;
    }
    const auto least = static_cast<size_t>(
        std::min_element(loads_.begin(), loads_.begin() + static_cast<ptrdiff_t>(session_->connections())) -
        loads_.begin());
    if (loads_[least] >= kInFlight) return;
    std::unique_ptr<Piece> piece = std::move(queue_[i]);
    queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(i));
    piece->connection = least;
    if (!Send(std::move(piece))) return;
  }
}

// Writes again what a server may have lost, in order where it overlaps. True: all of it is there again.
bool Engine::Replay() {
  const auto& entries = unflushed_.entries();
  while (replayed_ < entries.size() && in_flight_.size() < kReplayed && !Overlaps(entries[replayed_])) {
    const Unflushed::Entry& entry = entries[replayed_++];
    auto piece = std::make_unique<Piece>();
    piece->engine = this;
    piece->op = entry.op;
    piece->replay = true;
    piece->deallocate = entry.deallocate;
    piece->offset = entry.offset;
    piece->length = entry.length;
    piece->data = const_cast<std::byte*>(entry.data.data());
    if (!Send(std::move(piece))) return false;
  }
  replaying_ = replayed_ < entries.size() || !in_flight_.empty();
  return !replaying_;
}

bool Engine::Overlaps(const Unflushed::Entry& entry) const {
  return std::any_of(in_flight_.begin(), in_flight_.end(), [&](const auto& piece) {
    return entry.offset < piece->offset + piece->length && piece->offset < entry.offset + entry.length;
  });
}

void Engine::FlushItself() {
  if (own_flush_) return;
  own_flush_ = true;
  auto piece = std::make_unique<Piece>();
  piece->engine = this;
  piece->op = Op::kFlush;
  Send(std::move(piece));
}

// False: it could not be sent, and the session or the piece is over.
bool Engine::Send(std::unique_ptr<Piece> piece) {
  Piece& sent = *piece;
  loads_[sent.connection]++;
  if (sent.op == Op::kFlush) sent.mark = unflushed_.Mark();
  in_flight_.push_back(std::move(piece));
  if (Issue(sent, session_->at(sent.connection)) >= 0) return true;
  sent.err = api_.get_errno() > 0 ? api_.get_errno() : EIO;
  if (api_.aio_is_ready(session_->at(sent.connection)) <= 0 &&
      api_.aio_is_processing(session_->at(sent.connection)) <= 0)
    return false;  // Turn() finds the connection lost
  completed_.push_back(&sent);
  return true;
}

int64_t Engine::Issue(Piece& piece, nbd::Handle* handle) {
  const nbd::Completion done{Done, &piece, nullptr};
  const uint32_t fua = piece.durable && session_->facts().fua ? nbd::kFlagFua : 0;
  switch (piece.op) {
    case Op::kRead:
      return api_.aio_pread(handle, piece.data, piece.length, piece.offset, done, 0);
    case Op::kWrite:
      return api_.aio_pwrite(handle, piece.data, piece.length, piece.offset, done, fua);
    case Op::kFlush:
      return api_.aio_flush(handle, done, 0);
    case Op::kDiscard:
      return api_.aio_trim(handle, piece.length, piece.offset, done, 0);
    default:
      if (piece.look)
        return api_.aio_block_status(handle, piece.length, piece.offset, {Extent, &piece, nullptr}, done, 0);
      return api_.aio_zero(handle, piece.length, piece.offset, done, fua | (piece.deallocate ? 0 : nbd::kFlagNoHole));
  }
}

void Engine::TakeCompleted() {
  std::vector<Piece*> completed;
  completed.swap(completed_);
  for (Piece* piece : completed) {
    if (piece->err == ESHUTDOWN || piece->err == ENOTCONN) {
      // The server is about to end: as good as lost.
      if (session_) return Lose("lost", piece->err);
      continue;
    }
    const auto at =
        std::find_if(in_flight_.begin(), in_flight_.end(), [&](const auto& one) { return one.get() == piece; });
    if (at == in_flight_.end()) continue;
    std::unique_ptr<Piece> own = std::move(*at);
    *at = std::move(in_flight_.back());
    in_flight_.pop_back();
    loads_[own->connection]--;
    Completed(std::move(own));
  }
}

void Engine::Completed(std::unique_ptr<Piece> piece) {
  if (piece->look) return Looked(*piece);
  if (piece->err == 0 && piece->op == Op::kFlush) {
    unflushed_.Flushed(piece->mark);
    changed_blind_ = changed_blind_ && !unflushed_.empty();
  }
  if (!piece->active) {
    if (piece->op == Op::kFlush) own_flush_ = false;
    // What cannot be written again, or flushed, is lost.
    if (piece->err != 0) durability_->Fail(piece->err);
    if (piece->err != 0 && piece->op == Op::kFlush) unflushed_.Clear();
    return;
  }
  const bool changes = piece->op == Op::kWrite || piece->op == Op::kZero || piece->op == Op::kDiscard;
  const bool made_durable = piece->durable && session_ && session_->facts().fua;
  if (piece->err == 0 && changes && !made_durable && first_.flush && !options_.readonly) {
    if (options_.shared)
      changed_blind_ = true;
    else
      unflushed_.Add(piece->op, piece->deallocate, piece->offset, piece->length,
                     piece->op == Op::kWrite ? piece->data : nullptr);
  }
  if (piece->err == 0 && piece->op == Op::kRead && !piece->bounced.empty())
    CopyTo(piece->bounced.data() + piece->skip, piece->active->request->parts, piece->at,
           piece->wanted > 0 ? piece->wanted : piece->length);
  Settle(piece->active, piece->err);
}

// Whether zeroes are to be written where a hole may be.
void Engine::Looked(Piece& piece) {
  Active& active = *piece.active;
  active.hole = false;
  if (piece.err != 0 || piece.zeroes < piece.length) {
    const uint64_t most = std::min<uint64_t>(kPieceBytes, first_.maximum / first_.minimum * first_.minimum);
    for (uint64_t at = 0; at < piece.length; at += most)
      Add(active, Op::kWrite, at, piece.offset + at, std::min(piece.length - at, most));
  }
  Settle(&active, 0);
}

void Engine::Settle(Active* active, int err) {
  if (err != 0 && active->err == 0) active->err = err;
  if (--active->left == 0) Finish(active);
}

void Engine::Finish(Active* active) {
  Request* const request = active->request;
  request->result = active->err;
  actives_.erase(std::find_if(actives_.begin(), actives_.end(), [&](const Active& one) { return &one == active; }));
  request->done(request);
}

// Fails what has waited for too long.
void Engine::Expire() {
  const uint64_t now = os::NowNs();
  if (std::none_of(actives_.begin(), actives_.end(), [&](const Active& one) { return now >= one.deadline; })) return;
  const auto late = [&](const auto& piece) { return piece->active && now >= piece->active->deadline; };
  // What libnbd has, it may still write to: only the end of the connection takes that back.
  if (session_ && std::any_of(in_flight_.begin(), in_flight_.end(), late)) return Lose("silent", ETIMEDOUT);
  if (!session_ && !down_ && opened_ && now - lost_at_ >= options_.timeout_ms * kMs) {
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

class Nbd final : public Remote {
 public:
  explicit Nbd(const NbdOptions& options) : options_(options) {
    readonly_ = options.readonly;
    engine_ = std::make_shared<Engine>(
        options, [news = news_](const char* what, int err) { news->Tell(what, err); }, durability_);
    os::StartThread([engine = engine_] { engine->Run(); }).detach();
    try {
      facts_ = engine_->Opened();
    } catch (...) {
      engine_->Wait();
      throw;
    }
    size_.store(facts_.size);
  }
  ~Nbd() override {
    engine_->Stop();
    engine_->Wait();
  }

  void Begin(Request* request) override { engine_->Begin(request); }
  bool TakesDurable() const override { return engine_->fua(); }
  bool Loses(int err) const override { return err != 0 && !Away(err); }
  std::string lasting_name() const override { return options_.name.empty() ? options_.uri : options_.name; }
  uint64_t Refresh() override {
    size_.store(engine_->size(), std::memory_order_relaxed);
    return size();
  }
  void Reopen() override { engine_->Reopen(); }

  Geometry geometry() const override {
    Geometry geometry;
    geometry.logical = std::max(512u, facts_.minimum);
    geometry.physical = std::max(geometry.logical, std::min(facts_.preferred, 65536u));
    geometry.optimal_io = facts_.preferred;
    geometry.rotational = facts_.rotational;
    geometry.readonly = facts_.readonly;
    return geometry;
  }

 private:
  const NbdOptions options_;
  std::shared_ptr<Engine> engine_;
  nbd::Facts facts_;
};

}  // namespace

std::shared_ptr<Store> OpenNbd(const NbdOptions& options) { return std::make_shared<Nbd>(options); }

}  // namespace vioctl::storage
