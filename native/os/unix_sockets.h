// The UNIX sockets of this network namespace (sock_diag(7)).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace vioctl::os {

// One of them (UNIX_DIAG).
struct UnixSocket {
  uint32_t inode;
  uint32_t peer;        // inode of the connected other end, 0 for none
  uint8_t type;         // SOCK_STREAM, ...
  uint8_t state;        // TCP_ESTABLISHED 1, TCP_LISTEN 10, ...
  uint32_t file_inode;  // of the bound file, low 32 bits; 0 for none
  std::string name;     // bound path; an abstract name starts with NUL
};
// All of them. Throws SysError.
std::vector<UnixSocket> UnixSockets();

}  // namespace vioctl::os
