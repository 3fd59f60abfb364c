#include "os/thread.h"

#include <pthread.h>

#include <csignal>
#include <system_error>

#include "common/error.h"

namespace vioctl::os {

std::thread StartThread(std::function<void()> body) {
  sigset_t blocked, before;
  sigfillset(&blocked);
  for (const int fault : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&blocked, fault);
  ::pthread_sigmask(SIG_SETMASK, &blocked, &before);
  std::thread thread;
  int error = 0;
  try {
    thread = std::thread(std::move(body));
  } catch (const std::system_error& failure) {
    error = failure.code().value();
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) throw SysError(error, "pthread_create");
  return thread;
}

}  // namespace vioctl::os
