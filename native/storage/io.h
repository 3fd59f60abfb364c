// What is asked of a source without waiting for it: the one interface of all servers here. Requests are done by the
// threads of an executor, in the lane of their source, or by a source that answers later itself (remote/remote.h).
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "storage/durability.h"
#include "storage/executor.h"
#include "storage/request.h"

namespace vioctl::storage {

class Store;

// Part of the object that asks, so that an I/O allocates nothing. Whoever starts it keeps the request, its store and
// its memory until done() is called.
struct Io : Job, private SyncWaiter {
  Op op = Op::kRead;
  bool durable = false;     // a write, or zeroes: on stable storage before it is done
  bool deallocate = false;  // zeroes: give the space back if that is possible
  Store* store = nullptr;
  const iovec* parts = nullptr;  // of a read, write or compare
  int count = 0;
  uint64_t offset = 0, length = 0;  // length: of zeroes or a discard
  int result = 0;                   // 0 or an errno, when it is done
  void (*done)(Io*) = nullptr;      // the last use of the request, on any thread, maybe before Start() has returned

  // Starts it. What a thread has to do is put into `batch`, for Executor::Submit() on `executor`; it does not begin
  // before. A flush of a source that another one flushes has nothing to do but wait for that one.
  void Start(Executor& executor, std::vector<Job*>& batch);
  // On a thread of the executor that has written: makes that durable, alone or with others. Only store and done matter.
  // Threads of the executor never wait for the sync of somebody else (Store::Flush()), which may need one of them.
  void Sync(Executor& executor);

 private:
  void Lead() override;
  void Synced(int err) override;
  void Perform();
  void LeadSync();
  void Begin();
  void BeginSync();
  void End(int err);

  struct Later : Request {
    Io* io = nullptr;
  };
  Later later_;  // what a source that answers later has of it
  Executor* executor_ = nullptr;
};

}  // namespace vioctl::storage
