#include "vfio/exec.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <unistd.h>

#include "common/error.h"
#include "common/owned.h"

namespace vioctl::vfio {
namespace {

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

void Exec(const ExecRequest& request) {
  // Copies above all targets first, so that no target overwrites a source.
  const int base = 3 + static_cast<int>(request.fds.size());
  std::vector<Fd> copies;
  for (int fd : request.fds) copies.emplace_back(Check(::fcntl(fd, F_DUPFD_CLOEXEC, base), "fcntl", "F_DUPFD_CLOEXEC"));
  for (size_t i = 0; i < copies.size(); i++) Check(::dup2(copies[i].get(), 3 + static_cast<int>(i)), "dup2");
  std::vector<std::string> env = request.env;
  env.push_back("LISTEN_PID=" + std::to_string(::getpid()));
  const auto argv = Pointers(request.argv), envp = Pointers(env);
  if (request.drop) {
    Check(::setgroups(0, nullptr), "setgroups");
    Check(::setresgid(request.gid, request.gid, request.gid), "setresgid");
    Check(::setresuid(request.uid, request.uid, request.uid), "setresuid");
  }
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int s = 1; s < NSIG; s++) ::sigaction(s, &standard, nullptr);  // EINVAL for those that cannot be set
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execvpe(request.file.c_str(), argv.data(), envp.data());
  throw SysError(errno, "execve", request.file);
}

}  // namespace vioctl::vfio
