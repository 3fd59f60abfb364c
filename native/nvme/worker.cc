#include "nvme/worker.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>

#include "common/assert.h"
#include "common/error.h"
#include "nvme/connection.h"
#include "os/clock.h"
#include "os/eventfd.h"
#include "os/socket.h"

namespace vioctl::nvme {
namespace {

std::string PeerName(int fd) {
  sockaddr_storage peer{}, own{};
  socklen_t size = sizeof peer;
  std::string text;
  auto add = [&text](const sockaddr_storage& at) {
    char name[INET6_ADDRSTRLEN] = "";
    if (at.ss_family == AF_INET6) {
      const auto& in = reinterpret_cast<const sockaddr_in6&>(at);
      ::inet_ntop(AF_INET6, &in.sin6_addr, name, sizeof name);
      text += std::string(name) + " " + std::to_string(ntohs(in.sin6_port));
    } else {
      const auto& in = reinterpret_cast<const sockaddr_in&>(at);
      ::inet_ntop(AF_INET, &in.sin_addr, name, sizeof name);
      text += std::string(name) + " " + std::to_string(ntohs(in.sin_port));
    }
  };
  ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size);
  add(peer);
  size = sizeof own;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size);
  text += " ";
  add(own);
  return text;
}

constexpr uint32_t kDeep = 4;  // jobs that the executor has of us, from which on sleeping costs less than waiting
constexpr int kNapMs = 1;      // the first sleep then: the executor signals once for many jobs
// Answers in a row that came later than polling lasts, from which on nobody polls for them; after so many more, once
// again.
constexpr uint32_t kFutile = 8, kRetry = 64;
constexpr int kTickMs = 500;
constexpr int kPeeks = 31;  // looks at the socket of one busy connection before epoll is asked about the others
constexpr uint64_t kPeekNs = 50000;  // and the time after which it is asked in any case

}  // namespace

Buffers::~Buffers() {
  for (const Class& one : classes_)
    for (uint8_t* buffer : one.free) ::free(buffer);
}

size_t Buffers::ClassOf(uint32_t size) {
  VIOCTL_ASSERT(size <= kMaxTransfer);
  size_t i = 0;
  while (kSizes[i] < size) i++;
  return i;
}

uint8_t* Buffers::Take(uint32_t size) {
  const size_t i = ClassOf(size);
  Class& one = classes_[i];
  if (!one.free.empty()) {
    uint8_t* buffer = one.free.back();
    one.free.pop_back();
    one.spare = std::min(one.spare, one.free.size());
    return buffer;
  }
  void* buffer = ::aligned_alloc(4096, kSizes[i]);
  if (!buffer) throw std::bad_alloc();
  return static_cast<uint8_t*>(buffer);
}

void Buffers::Give(uint8_t* buffer, uint32_t size) { classes_[ClassOf(size)].free.push_back(buffer); }

void Buffers::Trim() {
  for (Class& one : classes_) {
    for (; one.spare > 0; one.spare--) {
      ::free(one.free.back());
      one.free.pop_back();
    }
    one.spare = one.free.size();
  }
}

bool Buffers::any() const {
  return std::any_of(std::begin(classes_), std::end(classes_), [](const Class& one) { return !one.free.empty(); });
}

uint8_t* Worker::TakeBuffer(const Request& request, uint32_t size) {
  if (ring_ && request.ns && request.ns->store->Async()) {
    if (!ringBuffers_.tried()) ringBuffers_.Register(*ring_);
    if (uint8_t* buffer = ringBuffers_.Take(size)) return buffer;
  }
  return buffers_.Take(size);
}

void Worker::GiveBuffer(uint8_t* buffer, uint32_t size) {
  if (!ringBuffers_.Give(buffer)) buffers_.Give(buffer, size);
}

Worker::Worker(Target& target, int index)
    : target_(target),
      index_(index),
      epoll_(Check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      wake_(os::NewEventfd()),
      done_(wake_.get()),
      receive_(new uint8_t[2 * kReceive]) {
  epoll_event event{EPOLLIN, {.u64 = kWakeKey}};
  Check(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event), "epoll_ctl");
  threads_[0] = std::thread([this] { Live(0); });
  try {
    threads_[1] = std::thread([this] { Live(1); });
  } catch (const std::system_error&) {
    // Nobody stands by: the executor writes.
  }
}

Worker::~Worker() { Stop(); }

void Worker::Post(Message message) {
  // Signalled under the lock: once the message has been handled, this worker may end as soon as the lock is free.
  std::lock_guard lock(mutex_);
  inbox_.push_back(std::move(message));
  if (inbox_.size() == 1) os::SignalEventfd(wake_.get());
}

void Worker::Stop() {
  stop_.store(true);
  os::SignalEventfd(wake_.get());
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
  std::lock_guard lock(mutex_);
  inbox_.clear();  // whoever waits for it is told
}

// What an event of epoll means for a connection. Each step may end it. True: bytes came, or their end.
bool Worker::Ready(uint32_t id, uint32_t what) {
  Connection* connection = Find(id);
  if (!connection) return false;
  bool came = false;
  try {
    if (what & EPOLLOUT) connection->Writable();
    if (what & (EPOLLIN | EPOLLRDHUP)) {
      lends_ = true;
      answered_ = false;
      if ((connection = Find(id)) && (came = connection->Readable())) prompt_ = answered_;
    }
    if (what & (EPOLLERR | EPOLLHUP)) {
      if ((connection = Find(id))) connection->Hangup();
    }
  } catch (const std::exception&) {
    // Of one connection alone: what it holds is given back. OpenSSL says ENOMEM by a SysError.
    if ((connection = Find(id))) connection->Hangup(kNoMemory);
  }
  lends_ = false;
  return came;
}

// Looks at the socket of the connection that alone was busy. True: it had something to say.
bool Worker::Peek() {
  const Connection* connection = Find(hot_);
  if (!connection || !connection->reads()) {
    hot_ = 0;
    return false;
  }
  peeks_++;
  return Ready(hot_, EPOLLIN);
}

void Worker::Retire(Connection* connection) {
  auto found = connections_.find(connection->id());
  if (found == connections_.end()) return;
  zombies_.push_back(std::move(found->second));
  connections_.erase(found);
  load_.fetch_sub(1, std::memory_order_relaxed);
  if (!connection->trusted()) strangers_.fetch_sub(1, std::memory_order_relaxed);
  target_.connections_.fetch_sub(1);
}

Connection* Worker::Find(uint32_t id) {
  auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

// For whoever may end some of them on the way.
std::vector<Connection*> Worker::All() const {
  std::vector<Connection*> all;
  all.reserve(connections_.size());
  for (const auto& [id, connection] : connections_) all.push_back(connection.get());
  return all;
}

void Worker::Accept(uint32_t listener) {
  const auto& [socket, tls] = listeners_[listener];
  if (!socket.valid()) return;  // closed since
  for (int i = 0; i < 64; i++) {
    Fd fd;
    if (const int error = os::TryAccept(socket.get(), fd)) {
      if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
        if (EvictOldest()) continue;
        full_ = true;
        for (const Listener& one : listeners_)
          if (one.fd.valid()) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, one.fd.get(), nullptr);
      }
      return;
    }
    if (target_.connections_.load() >= target_.maxConnections_.load() && !MakeRoom()) continue;
    target_.connections_.fetch_add(1);
    Worker* best = this;
    for (const auto& worker : target_.workers_)
      if (worker->load() < best->load()) best = worker.get();
    best->load_.fetch_add(1, std::memory_order_relaxed);
    best->strangers_.fetch_add(1, std::memory_order_relaxed);
    Adopt come{std::move(fd), listener, tls};
    if (best == this)
      Open(std::move(come));
    else
      best->Post(std::move(come));
  }
}

// Ends the oldest connection that has not connected to a controller yet, so that those who say nothing cannot keep
// others out. False: all are hosts at work.
bool Worker::MakeRoom() {
  Worker* most = this;
  for (const auto& worker : target_.workers_)
    if (worker->strangers_.load() > most->strangers_.load()) most = worker.get();
  if (most == this) return EvictOldest();
  most->Post(Evict{});
  return true;
}

bool Worker::EvictOldest() {
  while (!newest_.empty()) {
    Connection* connection = Find(newest_.front());
    newest_.pop_front();
    if (!connection || connection->trusted()) continue;
    connection->Hangup(connection->assigned() ? "not authenticated yet, and others wait"
                                              : "no CONNECT yet, and others wait");
    return true;
  }
  return false;
}

void Worker::Open(Adopt come) {
  const int raw = come.fd.get(), one = 1;
  os::TuneTcp(raw);
  // A host without a keep-alive time-out that has vanished is noticed after two minutes.
  const int idle = 60, interval = 10, count = 6;
  ::setsockopt(raw, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  ::setsockopt(raw, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(raw, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(raw, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  uint32_t id;
  do id = ((++sequence_ & 0xffffff) << 8) | static_cast<uint32_t>(index_);
  while (connections_.count(id));
  Event event{};
  event.kind = Event::kOpened;
  event.connection = id;
  event.tag = come.listener;
  const std::string name = PeerName(raw);
  event.data.assign(name.begin(), name.end());
  std::unique_ptr<Connection> connection;
  try {
    connection = std::make_unique<Connection>(*this, id, std::move(come.fd), come.tls);
  } catch (const std::bad_alloc&) {
    // closed below
  }
  epoll_event interest{EPOLLIN | EPOLLRDHUP, {.u64 = id}};
  if (!connection || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, raw, &interest) != 0) {
    load_.fetch_sub(1, std::memory_order_relaxed);
    strangers_.fetch_sub(1, std::memory_order_relaxed);
    target_.connections_.fetch_sub(1);
    return;
  }
  connections_.emplace(id, std::move(connection));
  newest_.push_back(id);
  target_.Push(std::move(event));
}

void Worker::Handle(Message& message) {
  if (auto* adopt = std::get_if<Adopt>(&message)) {
    Open(std::move(*adopt));
  } else if (auto* reply = std::get_if<Reply>(&message)) {
    if (Connection* connection = Find(reply->connection)) connection->Reply(*reply);
  } else if (auto* assign = std::get_if<Assign>(&message)) {
    Connection* connection = Find(assign->connection);
    if (!connection) return;
    const bool stranger = !connection->trusted();
    connection->Assign(assign->setup);
    if (stranger && connection->trusted()) strangers_.fetch_sub(1, std::memory_order_relaxed);
  } else if (auto* unlock = std::get_if<Unlock>(&message)) {
    Connection* connection = Find(unlock->connection);
    if (connection && connection->Unlock()) strangers_.fetch_sub(1, std::memory_order_relaxed);
  } else if (auto* key = std::get_if<Key>(&message)) {
    if (Connection* connection = Find(key->connection)) connection->AnswerKey(std::move(key->psk));
  } else if (auto* more = std::get_if<More>(&message)) {
    if (Connection* connection = Find(more->connection)) connection->More();
  } else if (auto* end = std::get_if<End>(&message)) {
    if (Connection* connection = Find(end->connection)) connection->Finish("closed by the target");
  } else if (auto* listen = std::get_if<ListenOn>(&message)) {
    listeners_.push_back(std::move(listen->listener));
    epoll_event event{EPOLLIN, {.u64 = kListenKey + listeners_.size() - 1}};
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listeners_.back().fd.get(), &event);
  } else if (auto* set = std::get_if<SetTls>(&message)) {
    if (set->listener < listeners_.size()) listeners_[set->listener].tls = set->tls;
  } else if (auto* unlisten = std::get_if<Unlisten>(&message)) {
    if (unlisten->listener >= listeners_.size() || !listeners_[unlisten->listener].fd.valid()) return;
    Fd& listener = listeners_[unlisten->listener].fd;
    // A service manager may have the socket open too: epoll would go on telling of it.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener.get(), nullptr);
    listener = Fd();
  } else if (auto* go = std::get_if<Go>(&message)) {
    go->request->connection->Go(*go->request);
  } else if (std::holds_alternative<Renew>(message)) {
    if (files_) files_->Clear();  // a slot holds its file
    for (Connection* connection : All()) connection->Renew();
    for (const auto& connection : zombies_) connection->Renew();
  } else {
    EvictOldest();
  }
}

void Worker::Messages() {
  uint64_t count;
  [[maybe_unused]] const ssize_t done = ::read(wake_.get(), &count, sizeof count);
  if (files_) files_->Refresh();
  std::vector<Message> inbox;
  {
    std::lock_guard lock(mutex_);
    inbox.swap(inbox_);
  }
  for (Message& message : inbox) {
    Connection* of = nullptr;
    if (const auto* reply = std::get_if<Reply>(&message)) of = Find(reply->connection);
    if (const auto* go = std::get_if<Go>(&message)) of = go->request->connection;
    if (const auto* key = std::get_if<Key>(&message)) of = Find(key->connection);
    if (const auto* more = std::get_if<More>(&message)) of = Find(more->connection);
    try {
      Handle(message);
    } catch (const std::exception&) {
      if (of) of->Hangup(kNoMemory);
    }
  }
}

void Worker::Tick() {
  if (files_) files_->Sweep();
  buffers_.Trim();
  if (full_) {
    full_ = false;
    for (size_t i = 0; i < listeners_.size(); i++) {
      if (!listeners_[i].fd.valid()) continue;
      epoll_event event{EPOLLIN, {.u64 = kListenKey + i}};
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, listeners_[i].fd.get(), &event);
    }
  }
  while (!newest_.empty()) {
    const Connection* oldest = Find(newest_.front());
    if (oldest && !oldest->trusted()) break;
    newest_.pop_front();
  }
  for (Connection* connection : All()) connection->Tick();
}

// Waits for events. What the executor does from now on is signalled, if this thread really sleeps.
int Worker::Wait(epoll_event* events, int count, int timeout) {
  if (timeout == 0) return ::epoll_wait(epoll_.get(), events, count, 0);
  if (!done_.Sleep()) timeout = 0;
  const int got = ::epoll_wait(epoll_.get(), events, count, timeout);
  done_.Awake();
  return got;
}

// The loop. True: it has ended. False: another thread has it.
bool Worker::Run() {
  const uint64_t spin = static_cast<uint64_t>(target_.options_.spinMicroseconds) * 1000;
  epoll_event events[256];
  int nap = kNapMs;
  uint64_t worked = 0;
  if (ticked_ == 0) ticked_ = os::NowMs();
  uint64_t ns = os::NowNs();
  while (true) {
    now_ = ns / 1'000'000;
    // Waiting costs a wake-up of tens of microseconds; a busy queue's next command is there sooner.
    const bool waits = done_.out() > 0 && !prompt_;
    const bool sleeps = waits && (done_.out() >= kDeep || futile_ >= kFutile);
    int timeout = ns - worked < spin && !sleeps ? 0 : -1;
    if (timeout != 0 && !connections_.empty()) timeout = kTickMs;
    if (timeout < 0 && (full_ || buffers_.any())) timeout = kTickMs;
    // One of many jobs may hang behind others whose ends were not signalled: those are looked for.
    if (timeout != 0 && done_.out() > 1) timeout = std::min(nap, kTickMs);
    // What was read by the thread that lost the loop, or is left of the last turn.
    if (!rest_.empty() || !gathered_.empty()) timeout = 0;
    int count = 0;
    if (timeout == 0 && hot_ != 0 && peeks_ < kPeeks && ns - asked_ < kPeekNs) {
      if (Peek()) worked = ns;
      if (!Dispatch()) return false;
    } else {
      count = Wait(events, 256, timeout);
      if (timeout != 0) {
        ns = os::NowNs();
        now_ = ns / 1'000'000;
      }
      peeks_ = 0;
      asked_ = ns;
      if (count > 0) hot_ = count == 1 && events[0].data.u64 < kWakeKey ? static_cast<uint32_t>(events[0].data.u64) : 0;
    }
    for (int i = 0; i < count; i++) {
      const uint64_t key = events[i].data.u64;
      if (key == kWakeKey) {
        Messages();
      } else if (key == kRingKey) {
        uint64_t signals;
        [[maybe_unused]] const ssize_t done = ::read(ringEvent_.get(), &signals, sizeof signals);
        TurnRing();
      } else if (key >= kListenKey) {
        Accept(static_cast<uint32_t>(key - kListenKey));
      } else {
        Ready(static_cast<uint32_t>(key), events[i].events);
      }
      if (!Dispatch()) return false;  // what epoll has said besides, it says again
    }
    const bool done = Ripe(ns);
    if (done && waits) {
      if (ns - worked < spin)
        futile_ = 0;
      else if (++futile_ > kFutile + kRetry)
        futile_ = kFutile - 1;
    }
    if (done) TakeDone();
    if (ring_) TurnRing();
    gathered_.insert(gathered_.end(), rest_.begin(), rest_.end());
    const bool writes = !rest_.empty();
    rest_.clear();
    if (!Dispatch()) return false;
    ns = os::NowNs();
    if (count > 0 || done || writes) {
      nap = kNapMs;
      worked = ns;
    } else if (timeout != 0) {
      nap = std::min(nap * 2, kTickMs);
    }
    if (!zombies_.empty()) std::erase_if(zombies_, [](const auto& connection) { return !connection->busy(); });
    if (now_ - ticked_ >= kTickMs) {
      ticked_ = now_;
      Tick();
    }
    if (stop_.load(std::memory_order_relaxed)) break;
  }
  Drain();
  std::lock_guard lock(standMutex_);
  ended_ = true;
  stand_.notify_one();
  return true;
}

// Jobs elsewhere refer to connections: their ends are waited for.
void Worker::Drain() {
  ending_ = true;
  gathered_.insert(gathered_.end(), rest_.begin(), rest_.end());
  rest_.clear();
  for (auto& [id, connection] : connections_) {
    connection->Unpark();
    zombies_.push_back(std::move(connection));
  }
  connections_.clear();
  while (!zombies_.empty()) {
    std::erase_if(zombies_, [](const auto& connection) { return !connection->busy(); });
    if (zombies_.empty()) break;
    // Not the sockets: they would wake it again and again, and nothing is read from them any more.
    pollfd woken{wake_.get(), POLLIN, 0};
    ::poll(&woken, 1, 10);
    Messages();
    TakeDone();
    if (ring_) TurnRing();
    [[maybe_unused]] const bool mine = Dispatch();  // nothing is written here any more
  }
  while (done_.out() > 0) ::sched_yield();  // threads of the executor that are about to leave done_
  CloseRing();
}

}  // namespace vioctl::nvme
