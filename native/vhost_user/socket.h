// UNIX stream sockets that carry descriptors. Everything is non-blocking and close-on-exec.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

#include "os/fd.h"

namespace vioctl::vhost_user {

// Connected and listening sockets. Throw SysError.
Fd Connect(const std::string& path);  // EAGAIN: the server's backlog is full
Fd Listen(const std::string& path, int backlog, mode_t mode);
Fd Accept(int listener);  // none if nobody waits
void Pair(Fd out[2]);
ucred PeerOf(int socket);

// Sends what the socket takes now, the descriptors with its first byte. -1 if it takes nothing (EAGAIN).
ssize_t Send(int socket, const void* data, size_t size, const std::vector<int>& fds);

// Receives at most `size` bytes; every descriptor that came with them is owned in `fds` before anything else happens.
// 0 at the end of the stream, -1 if there is nothing (EAGAIN). Descriptors that this process has no room for are an
// error (EMFILE), and those that did arrive are closed.
ssize_t Receive(int socket, void* data, size_t size, std::vector<Fd>& fds);

// A UNIX socket of this network namespace (sock_diag(7), UNIX_DIAG).
struct UnixSocket {
  uint32_t inode;
  uint32_t peer;        // inode of the connected other end, 0 for none
  uint8_t type;         // SOCK_STREAM, ...
  uint8_t state;        // TCP_ESTABLISHED 1, TCP_LISTEN 10, ...
  uint32_t file_inode;  // of the bound file, low 32 bits; 0 for none
  std::string name;     // bound path; an abstract name starts with NUL
};
std::vector<UnixSocket> UnixSockets();

}  // namespace vioctl::vhost_user
