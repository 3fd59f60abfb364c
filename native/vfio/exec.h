// Replacing this process by another program that gets descriptors (sd_listen_fds(3)).
#pragma once
#include <string>
#include <vector>

namespace vioctl::vfio {

struct ExecRequest {
  std::string file;  // looked up in PATH unless it has a slash
  std::vector<std::string> argv, env;
  std::vector<int> fds;  // become 3, 4, …
  bool drop = false;     // change to uid and gid, without supplementary groups
  unsigned uid = 0, gid = 0;
};

// Throws SysError as long as this process can go on; once its descriptors are replaced, a failure ends it with status
// 126 or 127 as a shell would. Signals are set to their defaults and unblocked: Node ignores SIGPIPE, and the new
// program would inherit that. LISTEN_PID is added to the environment.
[[noreturn]] void Exec(const ExecRequest& request);

}  // namespace vioctl::vfio
