// One thread for each export keeps its connections, sends what is asked and takes answers. What was sent on a
// connection that is lost is sent again on the next one, after what the server may have forgotten (unflushed.h).
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/error.h"
#include "os/fd.h"
#include "storage/durability.h"
#include "storage/remote/nbd.h"
#include "storage/remote/nbd_session.h"
#include "storage/remote/unflushed.h"

namespace vioctl::storage::nbd {

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
  uint64_t mark = 0;      // of a flush: what it makes durable
  uint64_t deadline = 0;  // of the engine's own commands
  bool replay = false;    // data of Unflushed
  uint64_t zeroes = 0;    // of a look: bytes that are a hole
  int err = 0;
};

class Engine {
 public:
  // `tell` hears what is for the log, by the words of Remote::Tell. Throws SysError if there is no library.
  Engine(const NbdOptions& options, std::function<void(const char*, int)> tell, std::shared_ptr<Durability> durability);

  // On the engine's thread, until Stop().
  void Run();
  // Waits for the first connection. Throws SysError.
  Facts Opened();
  void Begin(Request* request);
  void Stop();
  bool Wait();  // for the end of Run(); false if it takes too long
  // Connects anew, and forgets a failure that was latched. Returns when that is forgotten.
  void Reopen();
  // The server may have told somebody else another size than this session: asks, and connects anew where that is so,
  // once what is under way has ended and is durable. Waits for that, or some seconds. Of one thread at a time.
  void LookAtSize();

  uint64_t size() const { return size_.load(std::memory_order_relaxed); }
  bool fua() const { return fua_.load(std::memory_order_relaxed); }

 private:
  bool Connected();
  void Renew();
  bool Drained();
  void Pause();
  void Serve(bool resizes);
  void Lose(const char* what, int err);
  void TakeIncoming();
  void Cut(Active& active);
  void Add(Active& active, Op op, uint64_t at, uint64_t offset, uint64_t length);
  void Pump();
  bool Replay();
  bool Overlaps(const Unflushed::Entry& entry) const;
  bool Send(std::unique_ptr<Piece> piece);
  int64_t Issue(Piece& piece, Handle* handle);
  void FlushItself();
  void TakeCompleted();
  void Completed(std::unique_ptr<Piece> piece);
  void Looked(Piece& piece);
  void Settle(Active* active, int err);
  void Finish(Active* active);
  void Expire();
  uint64_t Deadline() const;  // of what begins now
  void FailAll(int err);

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
  bool stop_ = false, opened_ = false, ended_ = false;
  uint64_t reopens_ = 0, reopened_ = 0;  // asked for, and done
  bool resizes_ = false;                 // a session that knows another size is asked for
  bool connected_ = false;
  uint64_t sessions_ = 0;  // so far
  std::optional<SysError> refused_;

  // Of whoever looks at the size.
  uint64_t ask_next_ = 0, ask_pause_ = 0;

  // Of the thread.
  std::optional<Session> session_;
  Facts first_;
  std::list<Active> actives_;
  std::deque<std::unique_ptr<Piece>> queue_;
  std::vector<std::unique_ptr<Piece>> in_flight_;
  std::vector<Piece*> completed_;
  std::array<uint32_t, Session::kConnections> loads_{};
  Unflushed unflushed_;
  size_t replayed_ = 0;  // entries of it that were sent to this session
  bool replaying_ = false, own_flush_ = false;
  // Of a shared export, which nothing is written to again: acknowledged changes, and how many of them are durable.
  uint64_t blind_ = 0, blind_flushed_ = 0;
  uint64_t connected_at_ = 0, lost_at_ = 0, told_at_ = 0;
  bool down_ = false, told_ = false, told_changed_ = false;
  uint64_t pause_ = 0, next_try_ = 0, drained_by_ = 0;
};

}  // namespace vioctl::storage::nbd
