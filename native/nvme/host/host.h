// A namespace of a remote subsystem: requests go in from any thread, and are answered from a thread of its own. It
// keeps an association with each of its addresses, uses the best path, and connects again what is lost; requests wait
// meanwhile.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "nvme/host/association.h"
#include "nvme/host/stamp.h"
#include "storage/request.h"

namespace vioctl::nvme::host {

struct NamespaceOptions : HostOptions {
  std::vector<Address> addresses;  // of one subsystem: its paths
  std::vector<Address> found;      // more of them, which Follow() changes
  uint32_t nsid = 0;               // 0: the only one that there is
  uint64_t loss_ms = 600'000;  // requests fail when no path was usable for so long; 0: at once, and nothing is replayed
  bool replay = true;          // writes that a lost cache may have had (unflushed.h); else the next flush fails
  uint32_t spin_us = 50;       // its thread looks for work so long before it sleeps
};

// Addresses of a namespace.
struct PathCount {
  uint32_t live = 0;  // with an association
  uint32_t all = 0;
};

// What happens, for a log. From the host's thread; `what` is one of the words of src/storage/news.ts.
struct Events {
  std::function<void(const char* what, int err)> news;
  std::function<void(uint64_t bytes)> resized;
};

class Engine;

class Host {
 public:
  // Connects to the first address that answers, and then to the others. Waits; the descriptor `stop` ends that when it
  // becomes readable. Throws SysError (ENOTUNIQ of "namespaces" if there is more than one and
  // none was named), CommandError.
  static std::unique_ptr<Host> Open(const NamespaceOptions& options, Events events, int stop = -1);
  // Ends the connections. Requests that are under way are answered with ESHUTDOWN. May be called by done() of a
  // request.
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // As they were when it was opened.
  const NamespaceFacts& facts() const { return facts_; }
  const Controller& controller() const { return controller_; }
  uint64_t size() const;
  // I/O queues of the first association, and commands that each of them takes.
  uint32_t queues() const { return queues_; }
  uint32_t depth() const { return depth_; }
  // Associations that there are now, addresses, and associations that were made again.
  PathCount paths() const;
  uint64_t reconnects() const;
  // Bytes from the start of the namespace and their number, whole blocks. done() comes once, from the host's thread.
  // Errors: ENOTCONN if no path was usable for the time of loss, ESHUTDOWN, else what the status means (ErrnoOf).
  void Submit(storage::Request* request);
  // Where else the subsystem is by now: takes the place of `found` of the options. From any thread. A path that is not
  // named any more stays until it is lost; addresses beyond kMaxPaths are left out.
  void Follow(std::vector<Address> found);
  // The namespaces of targets that requests go through, as its controller said last (stamp.h).
  Hops hops() const;
  // The status of the last command that failed and the errno of the last connection that was lost, for messages; 0 if
  // there is none.
  Status failure() const;
  int lost() const;
  // Its text, which may be empty.
  std::string lost_why() const;

 private:
  Host() = default;

  std::shared_ptr<Engine> engine_;
  NamespaceFacts facts_;
  Controller controller_;
  uint32_t queues_ = 0, depth_ = 0;
};

}  // namespace vioctl::nvme::host
