// The two kinds of threads of a Bulk, and what both need.
#pragma once
#include <pthread.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <system_error>
#include <thread>

#include "common/error.h"
#include "uring/bulk.h"

namespace vioctl::uring {

// A thread with a ring of its own for `depth` files at once. Throws SysError: io_uring_setup(2), EMFILE, ENOMEM.
std::unique_ptr<BulkThread> MakeRingThread(Bulk& bulk, uint32_t depth);

// A thread that makes one file after the other durable: where there is no io_uring, and several of them share the
// commits of the journal as well.
std::unique_ptr<BulkThread> MakePlainThread(Bulk& bulk);

// fsync(2) of a file by its name, or fdatasync(2) with `data`. Returns 0, or -errno of what failed first.
int32_t SyncFile(const char* path, bool data);

// A thread that leaves signals to the main thread. Throws SysError.
inline std::thread WithoutSignals(auto body) {
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  try {
    thread = std::thread(std::move(body));
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw SysError(error.code().value(), "pthread_create");
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace vioctl::uring
