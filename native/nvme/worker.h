// A thread of the target: an epoll loop over its connections, and the buffers they use.
#pragma once
#include <sys/epoll.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <optional>
#include <thread>
#include <unordered_map>
#include <variant>

#include "nvme/target.h"
#include "storage/completions.h"
#include "storage/ring/buffers.h"
#include "storage/ring/files.h"
#include "uring/ring.h"

namespace vioctl::nvme {

class Connection;
struct Request;

// Buffers by size class, kept for the next command. Of one thread.
class Buffers {
 public:
  ~Buffers();
  uint8_t* Take(uint32_t size);
  void Give(uint8_t* buffer, uint32_t size);
  // Gives back to the system what was not needed since the last call.
  void Trim();
  // Whether any wait for the next command.
  bool any() const;

 private:
  static constexpr uint32_t kSizes[] = {4096, 16384, 65536, 131072, 262144, kMaxTransfer};
  static constexpr size_t kClasses = std::size(kSizes);
  static size_t ClassOf(uint32_t size);
  struct Class {
    std::vector<uint8_t*> free;
    size_t spare = 0;  // fewest that were free since the last Trim()
  } classes_[kClasses];
};

class Worker {
 public:
  static constexpr size_t kReceive = 512 << 10;
  // Read at a time behind data that goes to a buffer of its own: more of it would have to be copied.
  static constexpr size_t kReceiveBehind = 4 << 10;

  Worker(Target& target, int index);
  ~Worker();

  struct Adopt {
    Fd fd;
    uint32_t listener;
    TlsUse tls;
  };
  struct Reply {
    uint32_t connection, tag;
    Status status;
    uint64_t result;
    std::vector<uint8_t> data;
  };
  struct Assign {
    uint32_t connection;
    QueueSetup setup;
  };
  struct Key {
    uint32_t connection;
    crypto::Psk psk;
  };
  struct More {
    uint32_t connection;
  };
  struct Unlock {
    uint32_t connection;
  };
  struct End {
    uint32_t connection;
  };
  // A socket that takes connections, and how they begin.
  struct Listener {
    Fd fd;
    TlsUse tls;
  };
  struct ListenOn {
    Listener listener;
  };
  struct SetTls {
    uint32_t listener;
    TlsUse tls;
  };
  struct Unlisten {
    uint32_t listener;
    std::shared_ptr<void> done;  // given back when it is closed
  };
  struct Evict {};
  // A request that its source's limits had delayed may go.
  struct Go {
    Request* request;
  };
  // Tables of namespaces have changed. Given back once no connection keeps what is not in them any more.
  struct Renew {
    std::shared_ptr<void> done;
  };
  using Message =
      std::variant<Adopt, Reply, Assign, Unlock, Key, More, End, ListenOn, SetTls, Unlisten, Evict, Go, Renew>;

  // From any thread.
  void Post(Message message);
  void Stop();
  // A request has been done, by whatever thread.
  void PostDone(storage::Job* job);
  int load() const { return load_.load(std::memory_order_relaxed); }

  // The rest is for the worker's own thread.
  Target& target() { return target_; }
  // Memory for the data of a request.
  uint8_t* TakeBuffer(const Request& request, uint32_t size);
  void GiveBuffer(uint8_t* buffer, uint32_t size);
  uint8_t* receiveBuffer() { return receive_.get() + reader_ * kReceive; }
  // Whether Dispatch() comes before anything else is read, so that requests may borrow from the receive buffer.
  bool lends() const { return lends_; }
  // Whether a write is one that this thread will do itself, then, so that it can do with borrowed data.
  bool Borrows(const Request& request) const;
  uint64_t now() const { return now_; }
  int epoll() const { return epoll_.get(); }
  // Has a command done: in the ring where it can, else by Dispatch(). Connection::Done follows.
  void Submit(Request* request);
  // Does or hands over what Submit() has gathered. False: this thread hung in it and has lost the loop.
  [[nodiscard]] bool Dispatch();
  // Lets the kernel have what was put into the ring, and takes what it has done.
  void TurnRing();
  // A connection has answered a command.
  void Answered() { answered_ = true; }
  // Takes the connection out of the tables; it is destroyed when its last job is done.
  void Retire(Connection* connection);

 private:
  // epoll data: connections by id; the wake-up, the ring and the listeners by numbers that no id has.
  static constexpr uint64_t kWakeKey = 1ULL << 40;
  static constexpr uint64_t kRingKey = 3ULL << 39;
  static constexpr uint64_t kListenKey = 1ULL << 41;
  static constexpr const char* kNoMemory = "out of memory";

  void Live(size_t thread);
  [[nodiscard]] bool Run();
  [[nodiscard]] bool Stand();
  void TakeOver(size_t thread);
  void HandOver();
  void KeepLent(std::vector<storage::Job*>& jobs);
  void Written(Request* request);
  [[nodiscard]] bool WriteHere();
  void Drain();
  void OpenRing();
  void CloseRing();
  bool SuitsRing(const Request& request) const;
  bool Ring(Request* request);
  bool RoomInRing(const Request& request, std::atomic<uint32_t>** counted) const;
  bool Remote(Request* request);
  void Elsewhere(Request* request);
  int Wait(epoll_event* events, int count, int timeout);
  void Finish(Request* request);
  void Settle();
  bool Ripe(uint64_t now);
  void TakeDone();
  void Accept(uint32_t listener);
  void Open(Adopt come);
  bool MakeRoom();
  bool EvictOldest();
  bool Ready(uint32_t id, uint32_t what);
  bool Peek();
  void Messages();
  void Handle(Message& message);
  void Tick();
  Connection* Find(uint32_t id);
  std::vector<Connection*> All() const;

  Target& target_;
  const int index_;
  Fd epoll_, wake_;
  std::mutex mutex_;
  std::vector<Message> inbox_;
  std::atomic<bool> stop_{false};
  storage::Completions done_;            // of requests, whatever thread has done them
  std::vector<storage::Job*> gathered_;  // for Dispatch()
  std::vector<storage::Job*> rest_;      // of what is written here, for the next turn
  std::vector<Connection*> unsettled_;   // have answers to send
  uint64_t seen_ = 0;                    // when the first of done_ was seen, ns; 0: none is
  std::atomic<int> load_{0};
  std::atomic<int> strangers_{0};  // connections without a CONNECT, or an authentication, so far

  std::unique_ptr<uring::Ring> ring_;  // of the thread that has the loop
  std::optional<storage::RingFiles> files_;
  storage::RingBuffers ringBuffers_;  // filled when a source is used past the page cache
  Fd ringEvent_;
  uint32_t inRing_ = 0, threaded_ = 0;  // requests in the ring; those that may keep one of its threads
  std::unique_ptr<uint8_t[]> receive_;  // a buffer for each thread: one that hangs may be writing out of its own
  size_t reader_ = 0;                   // the thread that has the loop
  bool lends_ = false;
  bool answered_ = false;  // something, since the last bytes were read
  bool prompt_ = false;    // what came last was answered at once: more of it comes soon, whatever the executor does
  uint32_t futile_ = 0;    // answers in a row for which polling was too short
  Buffers buffers_;
  std::unordered_map<uint32_t, std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> zombies_;
  std::deque<uint32_t> newest_;  // in the order they came, with some that have connected or gone since
  std::vector<Listener> listeners_;
  uint32_t sequence_ = 0;
  uint32_t hot_ = 0;    // the connection that alone was ready, the last time epoll was asked; 0: none was alone
  int peeks_ = 0;       // looks at its socket since then
  uint64_t asked_ = 0;  // when that was, ns
  uint64_t now_ = 0;
  uint64_t ticked_ = 0;  // ms of the last Tick()
  bool full_ = false;    // out of descriptors: the listeners rest until the next tick
  bool ending_ = false;  // nothing is written by the loop's thread any more

  // The thread of the loop does brief writes itself, while a second one stands by. One that hangs in a write loses the
  // loop to the other, and with it all that is the loop's; it comes back as the one that stands by.
  enum : int { kLooping, kWriting, kTaken };
  std::atomic<int> at_{kLooping};
  std::vector<storage::Job*>
      batch_;                     // that the loop's thread writes; answered when it has done all, or has lost the loop
  std::atomic<size_t> claim_{0};  // the next of batch_ to be done
  std::atomic<uint64_t> begun_{0};     // writes since the start
  std::atomic<bool> standing_{false};  // there is a thread to take the loop over
  std::atomic<bool> watched_{false};   // it looks at this one every millisecond
  std::mutex standMutex_;
  std::condition_variable stand_;
  bool ended_ = false;
  std::thread threads_[2];
};

}  // namespace vioctl::nvme
