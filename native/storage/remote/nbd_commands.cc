// What requests become on the wire, and what answers mean.
#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "storage/remote/nbd_engine.h"
#include "storage/remote/parts.h"
#include "storage/zeroes.h"

namespace vioctl::storage::nbd {
namespace {

constexpr uint32_t kPieceBytes = 1 << 20;     // data of a command at most
constexpr uint64_t kRangeBytes = 1ull << 30;  // of a discard or write of zeroes that has no data
constexpr uint32_t kInFlight = 64;            // commands of a connection
constexpr uint32_t kReplayed = 16;            // commands at a time that are sent again
std::byte no_data[kPieceBytes];               // what is written where the server knows no command for it

}  // namespace

int Engine::Done(void* user, int* error) {
  auto* piece = static_cast<Piece*>(user);
  piece->err = *error;
  piece->engine->completed_.push_back(piece);
  return 1;  // libnbd forgets it
}

int Engine::Extent(void* user, const char* context, uint64_t, uint32_t* entries, size_t count, int*) {
  auto* piece = static_cast<Piece*>(user);
  if (strcmp(context, kAllocation) != 0) return 0;
  constexpr uint32_t kHole = kExtentHole | kExtentZero;
  for (size_t i = 0; i + 1 < count && (entries[i + 1] & kHole) == kHole; i += 2) piece->zeroes += entries[i];
  return 0;
}

// Makes commands of a request.
void Engine::Cut(Active& active) {
  const Request& request = *active.request;
  const Facts& facts = first_;
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
  } else if (request.op == Op::kZero && !request.deallocate && options_.zero == ZeroMode::kHoles && facts.extents &&
             request.length <= kRangeBytes) {
    active.hole = true;
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
    piece->data = no_data;
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
  if (unflushed_.wants_flush()) FlushItself();
  // Writes wait while too much is unflushed; what is behind them does not.
  for (size_t i = 0; i < queue_.size();) {
    const Op op = queue_[i]->op;
    if (op != Op::kRead && op != Op::kFlush && unflushed_.full()) {
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
    piece->durable = entry.durable;
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
  if (!sent.active) sent.deadline = Deadline();
  if (sent.op == Op::kFlush) sent.mark = options_.shared ? blind_ : unflushed_.Mark();
  in_flight_.push_back(std::move(piece));
  if (Issue(sent, session_->at(sent.connection)) >= 0) return true;
  sent.err = api_.get_errno() > 0 ? api_.get_errno() : EIO;
  if (api_.aio_is_ready(session_->at(sent.connection)) <= 0 &&
      api_.aio_is_processing(session_->at(sent.connection)) <= 0)
    return false;  // Turn() finds the connection lost
  completed_.push_back(&sent);
  return true;
}

int64_t Engine::Issue(Piece& piece, Handle* handle) {
  const Completion done{Done, &piece, nullptr};
  const uint32_t fua = piece.durable && session_->facts().fua ? kFlagFua : 0;
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
      return api_.aio_zero(handle, piece.length, piece.offset, done, fua | (piece.deallocate ? 0 : kFlagNoHole));
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
    if (options_.shared)
      blind_flushed_ = std::max(blind_flushed_, piece->mark);
    else
      unflushed_.Flushed(piece->mark);
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
  if (piece->err == 0 && changes && first_.flush && !options_.readonly) {
    const iovec data{piece->data, piece->length};
    if (options_.shared)
      blind_ += made_durable ? 0 : 1;
    else
      unflushed_.Add(piece->op, piece->deallocate, made_durable, piece->offset, piece->length, &data, 0);
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
    const Op op = active.request->op;
    const uint64_t most = op == Op::kZero && first_.zero
                              ? kRangeBytes
                              : std::min<uint64_t>(kPieceBytes, first_.maximum / first_.minimum * first_.minimum);
    for (uint64_t at = 0; at < piece.length; at += most)
      Add(active, op, at, piece.offset + at, std::min(piece.length - at, most));
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

}  // namespace vioctl::storage::nbd
