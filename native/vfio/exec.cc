#include "vfio/exec.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "common/error.h"
#include "os/fd.h"

namespace vioctl::vfio {
namespace {

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Where execvpe() will find the file. Throws SysError while there is still a process to return to.
void CheckProgram(const std::string& file) {
  if (file.find('/') != std::string::npos) {
    Check(::access(file.c_str(), X_OK), "execve", file.c_str());
    return;
  }
  const char* path = ::getenv("PATH");
  const std::string folders = path ? path : "/usr/bin:/bin";
  for (size_t at = 0; at <= folders.size();) {
    const size_t end = std::min(folders.find(':', at), folders.size());
    const std::string folder = end == at ? "." : folders.substr(at, end - at);
    if (::access((folder + "/" + file).c_str(), X_OK) == 0) return;
    at = end + 1;
  }
  throw SysError(ENOENT, "execve", file);
}

}  // namespace

void Exec(const ExecRequest& request) {
  CheckProgram(request.file);
  std::vector<std::string> env = request.env;
  env.push_back("LISTEN_PID=" + std::to_string(::getpid()));
  const auto argv = Pointers(request.argv), envp = Pointers(env);
  if (request.drop) {
    Check(::setgroups(0, nullptr), "setgroups");
    Check(::setresgid(request.gid, request.gid, request.gid), "setresgid");
    Check(::setresuid(request.uid, request.uid, request.uid), "setresuid");
  }
  // Copies above all targets first, so that no target overwrites a source.
  const int base = 3 + static_cast<int>(request.fds.size());
  std::vector<Fd> copies;
  for (int fd : request.fds) copies.push_back(os::Duplicate(fd, base));
  // From here on the event loop's own descriptors are gone: nothing may return.
  for (size_t i = 0; i < copies.size(); i++) ::dup2(copies[i].get(), 3 + static_cast<int>(i));
  for (int fd = 0; fd < 3; fd++) {
    ::fcntl(fd, F_SETFD, 0);  // Node marks them close-on-exec, and pipes that it has looked at non-blocking
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK)) ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  }
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int s = 1; s < NSIG; s++) ::sigaction(s, &standard, nullptr);  // EINVAL for those that cannot be set
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execvpe(request.file.c_str(), argv.data(), envp.data());
  ::dprintf(2, "vioctl: run %s: %s\n", request.file.c_str(), SysError(errno, "execve").what());
  ::_exit(errno == ENOENT ? 127 : 126);
}

}  // namespace vioctl::vfio
