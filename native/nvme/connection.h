// One TCP connection of the target: PDUs in, PDUs out, the commands in between. Of one worker's thread.
#pragma once
#include "crypto/tls.h"
#include "nvme/landing.h"
#include "nvme/limits/budget.h"
#include "nvme/worker.h"
#include "storage/io.h"

namespace vioctl::nvme {

// Puts a header digest behind a header of `hlen` bytes, if asked to; returns the size of both.
size_t Seal(uint8_t* pdu, size_t hlen, bool digest);

// The status of a command whose store has answered with an errno, or 0.
Status WriteStatus(int err);
Status ReadStatus(int err);

// A PDU, or several, waiting to be sent.
struct Outgoing {
  Outgoing* next = nullptr;
  Request* request = nullptr;  // given back when this has been sent
  uint32_t bytes = 0;
  int count = 0;
  iovec parts[5];

  void Reset() {
    bytes = 0;
    count = 0;
    request = nullptr;
  }
  void Add(const void* data, size_t size) {
    parts[count++] = {const_cast<void*>(data), size};
    bytes += static_cast<uint32_t>(size);
  }
};

// What a command is, decided when it is taken: no later step asks what its connection is by then.
enum class Kind : uint8_t {
  kEarly,    // came before its queue was connected, or behind a Disconnect: refused
  kLocked,   // came before its host was authenticated: refused
  kConnect,  // the CONNECT that makes the connection a queue
  kAdmin,    // of an admin queue, fabrics commands included
  kFabrics,  // a fabrics command of an I/O queue
  kIo,       // a command of the NVM command set, of an I/O queue
};

// A command is found by its transfer tag: its place in the connection, and how often the place was used.
constexpr int kSlotBits = 11;
constexpr size_t kMaxSlots = size_t{1} << kSlotBits;
static_assert(kMaxSlots > kMaxQueueSize);
// So many are made at a time: a host that keeps few commands under way needs little memory.
constexpr size_t kSlotChunk = 8;

// A command from its capsule to its completion.
struct Request : storage::Job, storage::Throttle::Waiter, Budget::Waiter {
  enum State : uint8_t { kFree, kParked, kWaiting, kCollecting, kRunning, kWithHost, kSending };
  // kParked: for its turn under the limits of its source or of its host; kWaiting: for room to ask for its data;
  // kCollecting: R2T sent; kRunning: being done, here or elsewhere; kWithHost: handed out

  Request* next = nullptr;
  Connection* connection = nullptr;
  State state = kFree;
  Kind kind = Kind::kEarly;
  bool badDigest = false;
  std::atomic<uint32_t>* counted =
      nullptr;           // of its namespace, while it is in the ring; none: a read that may be there
  bool written = false;  // by the ring: what is left to do is a flush
  bool syncs = false;    // of a write that the worker did: its store is synced before the answer
  uint16_t slot = 0, generation = 0;
  Status status = kOk;
  uint64_t result = 0;
  uint64_t came = 0;  // when its capsule was read, ns
  Sqe sqe;
  std::shared_ptr<Namespace> ns;  // held while its memory is being sent, or a job runs
  uint8_t* buffer = nullptr;
  const uint8_t* lent = nullptr;  // data of a write that the worker does before it reads on, where it was received
  uint32_t capacity = 0, length = 0, received = 0, readLength = 0;
  uint32_t placed = 0;  // of what it has received, the first bytes that its store has already (landing.h)
  uint32_t held = 0;    // bytes of its host's budget; while it waits for them, those that it is to get
  struct Durable final : storage::Io {
    Request* request = nullptr;
  } durable;                   // what it owes after its work, or what a remote source does
  iovec data;                  // its buffer, for that source
  Request* partner = nullptr;  // the other half of a fused pair
  bool ready = false;          // of a fused half: all its data is here
  Outgoing r2t, out;
  uint8_t r2tPdu[sizeof(R2t) + 4];
  uint8_t dataPdu[128 + 4];
  uint8_t digest[4];
  uint8_t respPdu[sizeof(CapsuleResp) + 4];

  void Admitted() override;
  // What it writes.
  const uint8_t* data_in() const { return lent ? lent : buffer; }
  // Half of a fused pair that waits for the other one.
  bool Half() const { return state == kRunning && ready && !(partner && partner->ready); }
  uint16_t ttag() const { return static_cast<uint16_t>((slot & (kMaxSlots - 1)) | generation << kSlotBits); }
};

class Connection {
 public:
  Connection(Worker& worker, uint32_t id, Fd fd, TlsUse tls);
  ~Connection();

  uint32_t id() const { return id_; }
  int fd() const { return fd_.get(); }
  Worker& worker() const { return worker_; }
  bool busy() const { return running_ > 0 || parked_ > 0; }
  // A CONNECT has made it a queue of a controller.
  bool assigned() const { return assigned_; }
  // That, and its host is who it says, if it must prove that.
  bool trusted() const { return assigned_ && !locked_; }

  // True: bytes came, or their end.
  bool Readable();
  // Whether it takes what comes, if anything does.
  bool reads() const { return (armed_ & EPOLLIN) != 0; }
  // The key of an identity that its host has offered, none if there is none.
  void AnswerKey(crypto::Psk psk);
  // Reads on what has come through TLS and was not read when it came.
  void More();
  void Writable();
  void Hangup(const char* reason = "connection lost");
  void Tick();
  // Lets go of namespaces that are gone: a queue without work must not keep them.
  void Renew();
  void Assign(const QueueSetup& setup);
  // Lets all commands pass. False: they did already.
  bool Unlock() { return std::exchange(locked_, false); }
  void Reply(Worker::Reply& reply);
  // Answers a request that was done elsewhere; Settle() sends that, and what was answered before it.
  void Done(Request* request);
  void Settle();
  // Copies what was only lent to a request: its place is about to be read into again. Throws std::bad_alloc.
  void Keep(Request& request);
  // True once between two calls of Settle().
  bool Unsettle() { return !std::exchange(unsettled_, true); }
  // A request that has waited for its turn goes on.
  void Go(Request& request);
  // The end: nothing waits for its turn any more, but what is on its way here (Go()).
  void Unpark();
  // Ends it once everything queued has left.
  void Finish(const char* reason);
  // pool_ops.cc, on any thread: fills status and result. True if the store is to be synced before the answer.
  static bool Work(Request& request);
  static bool OwesFlush(const Request& request);
  // Fills in what a source that answers later is asked: a read, write, flush, or write of zeroes.
  static void BeginRemote(Request& request);

 private:
  void Unparked();
  enum State : uint8_t { kHandshake, kOpen, kDraining, kClosed };

  // connection.cc: receiving
  size_t Parse(const uint8_t* data, size_t size);
  size_t Pdu(const uint8_t* data, size_t size);
  bool Check(const uint8_t* data, size_t size, uint32_t* need);
  bool Fail(Fes fes, uint32_t fei, const uint8_t* pdu, size_t size);
  void Negotiate(const IcReq& request);
  void Capsule(const uint8_t* pdu, uint32_t plen);
  bool DataHeader(const uint8_t* pdu);
  size_t DataBytes(const uint8_t* data, size_t size);
  iovec DataRoom();
  void DataCame(size_t size);
  void Unland();
  void DataDone();
  void Keep(const uint8_t* data, size_t size);
  bool Stalled() const;
  void Resume();
  void Arm();

  // secure.cc: TLS between the socket and the PDUs
  ssize_t Receive(const iovec* to, int count);
  ssize_t Transmit(const iovec* from, int count);
  bool Secure();
  bool Shake();
  ssize_t Fetch();
  void Pump();
  bool Unsent() const { return head_ || (tls_ && !tls_->Unsent().empty()); }

  // commands.cc
  void Command(Request& request, const uint8_t* inCapsule, uint32_t inCapsuleLength, bool badDigest);
  void HandOut(Request& request, const uint8_t* data, uint32_t length);
  void FabricsOrAdmin(Request& request, const uint8_t* inCapsule, uint32_t inCapsuleLength, bool badDigest);
  void IoCommand(Request& request, const uint8_t* inCapsule, uint32_t inCapsuleLength, bool badDigest);
  Status Admit(Request& request, uint32_t inCapsuleLength, uint32_t* bytes);
  Status CheckRange(const Namespace& ns, uint64_t slba, uint64_t blocks) const;
  Status CheckWriteSgl(const Sqe& sqe, uint32_t length, uint32_t inCapsuleLength) const;
  Status CheckReadSgl(const Sqe& sqe, uint32_t length) const;
  bool Park(Request& request, const uint8_t* data, uint32_t length);
  bool Hold(Request& request, const uint8_t* data, uint32_t length);
  void GiveBack(Request& request);
  bool LeaveTurn(Request& request);
  void Proceed(Request& request, const uint8_t* data, uint32_t length);
  void Collect(Request& request, uint32_t length);
  void SendR2t(Request& request);
  void Collected(Request& request, const uint8_t* data);
  void Read(Request& request);
  void Write(Request& request, const uint8_t* data);
  void Start(Request& request, const uint8_t* data);
  bool Fuse(Request& request);
  void TryFused(Request& request);
  void Run(Request& request);
  Kind Classify(const Sqe& sqe) const;
  void LetGo();
  bool Detach(Request& request);
  void Count(const Request& request);
  void Tell();
  void Finished(Request& request);
  void Refresh();

  // send.cc
  Request* NewRequest(const Sqe& sqe);
  void Release(Request* request);
  void Drop(Request& request);
  void Own(Request& request, uint32_t size);
  void Own(Request& request, const uint8_t* data, uint32_t size);
  void Answered(const Request& request, Status status);
  void Respond(Request& request, Status status, uint64_t result = 0);
  void RespondData(Request& request, const uint8_t* data, uint32_t length, uint64_t result = 0);
  uint8_t* Response(Request& request, Status status, uint64_t result);
  void Queue(Outgoing& out, Request* request);
  void Flush();
  void Close(const char* reason);

  Worker& worker_;
  const uint32_t id_;
  Fd fd_;
  State state_ = kHandshake;
  bool hdgst_ = false, ddgst_ = false;
  bool flowControl_ = true;
  enum : uint8_t { kNone, kTaken, kHandedOut } connect_ = kNone;  // the CONNECT that is under way
  bool assigned_ = false;                                         // a CONNECT has succeeded
  bool locked_ = false;                                           // its host must be authenticated first
  bool leaving_ = false;                                          // a Disconnect is under way, or has succeeded
  uint32_t alignment_ = 4;
  uint16_t qid_ = 0, qsize_ = 32, sqhd_ = 0;
  uint32_t early_ = 0;  // commands taken since the CONNECT, itself included, until the queue is connected
  uint32_t maxInCapsule_ = kAdminInCapsule;
  uint64_t deadline_ = 0, progress_ = 0;
  uint64_t came_ = 0;  // when the last bytes were read, ns
  uint32_t armed_ = 0;
  bool batching_ = false;
  bool lending_ = false,
       lent_ = false;       // what is parsed lies in the worker's buffer; a request has borrowed from there
  bool unsettled_ = false;  // has answers that nobody has sent
  bool paused_ = false;     // whole PDUs may lie in partial_

  std::shared_ptr<Controller> controller_;
  std::shared_ptr<const NamespaceTable> table_;
  uint32_t tableGeneration_ = 0;
  std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  // Commands of one namespace that have come together and been done, but not been told of.
  struct Tally {
    std::shared_ptr<Namespace> ns;
    uint64_t came = 0;
    uint32_t reads = 0, writes = 0, flushes = 0, others = 0;
    uint64_t readBytes = 0, writtenBytes = 0;
  } tally_;

  std::vector<uint8_t> partial_;
  Request* data_ = nullptr;  // the command that an H2CData PDU in progress belongs to
  uint32_t dataLeft_ = 0, dataCrc_ = 0;
  Landing landing_;
  bool lands_ = false;  // its data goes to its store, not to a buffer
  uint32_t digestHave_ = 0;
  uint8_t digestBytes_[4];
  bool dataLast_ = false;

  std::vector<std::unique_ptr<Request[]>> chunks_;
  Request* free_ = nullptr;
  uint32_t inflight_ = 0, collecting_ = 0, running_ = 0, parked_ = 0, errors_ = 0;
  uint64_t collectBytes_ = 0, pendingBytes_ = 0, runningBytes_ = 0;
  std::deque<Request*> waiting_;
  Request* fusedFirst_ = nullptr;
  bool fusedFailed_ = false;
  std::unique_ptr<uint64_t[]> cids_;

  const TlsUse use_;
  std::unique_ptr<crypto::Tls> tls_;
  bool plain_ = false;      // the first byte has shown, or its listener has said, that there is no TLS
  bool asking_ = false;     // somebody looks for its key
  bool more_ = false;       // More() is on its way
  bool saidBye_ = false;    // close_notify has been put behind what is sent
  const char* fault_ = "";  // why Receive() says EPROTO

  Outgoing* head_ = nullptr;
  Outgoing* tail_ = nullptr;
  uint32_t sent_ = 0;  // bytes of head_ that have left
  Outgoing last_;      // ICResp or TermReq
  uint8_t lastPdu_[kTermReqMax];
};

}  // namespace vioctl::nvme
