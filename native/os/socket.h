// Sockets. All are close-on-exec; those of UNIX, which carry descriptors, and listeners are non-blocking as well.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "os/fd.h"

namespace vioctl::os {

// socket(2) of a family and type (SOCK_STREAM, SOCK_NONBLOCK). Throws SysError.
Fd NewSocket(int family, int type);
// connect(2); a blocking socket waits. Throws SysError with the detail.
void Connect(int socket, const sockaddr* address, socklen_t size, const std::string& detail);

// The same without an exception: 0 or the errno, EINPROGRESS of a non-blocking socket.
int TryConnect(int socket, const sockaddr* address, socklen_t size) noexcept;

// For a TCP connection, when it is there: commands are small, and do not wait for others to fill a segment. One within
// this machine needs no congestion control either, and BBR would pace it, which costs a timer for each burst: it gets
// the one that does least (TCP_CONGESTION, tcp(7)). Others keep the system's.
void TuneTcp(int socket) noexcept;

// Connections that wait until somebody takes them.
inline constexpr int kListenBacklog = 1024;
// Listens at a numeric address; port 0 takes a free one, and `bound` is the port that it got. Throws SysError.
Fd ListenTcp(const std::string& address, uint16_t port, bool ipv6, int backlog, uint16_t* bound);

// Where a TCP socket listens: a numeric address, with its scope if it has one.
struct TcpPlace {
  std::string address;
  uint16_t port = 0;
  bool ipv6 = false;
};
// The place of a listening TCP socket that came from elsewhere, which becomes close-on-exec and non-blocking. None for
// any other descriptor. Throws SysError.
std::optional<TcpPlace> AdoptListener(int fd);

// Takes one waiting connection, non-blocking. Returns 0 or the errno: EAGAIN if nobody waits.
int TryAccept(int listener, Fd& accepted) noexcept;

// Connected and listening UNIX sockets. Throw SysError.
Fd Connect(const std::string& path);  // EAGAIN: the server's backlog is full
// The file has this mode whatever the umask is, and this owner and group unless they are kNoId.
inline constexpr uid_t kNoId = static_cast<uid_t>(-1);
Fd Listen(const std::string& path, int backlog, mode_t mode, uid_t owner = kNoId, gid_t group = kNoId);
Fd Accept(int listener);  // none if nobody waits
void Pair(Fd out[2]);
ucred PeerOf(int socket);
// Where a UNIX socket listens, as it was bound; empty for one without a file. None for any other descriptor.
std::optional<std::string> ListenerPath(int socket);

// Sends what the socket takes now, the descriptors with its first byte. -1 if it takes nothing (EAGAIN).
ssize_t Send(int socket, const void* data, size_t size, const std::vector<int>& fds);

// Sends what the socket takes now, from several places. The bytes, or a negative errno: -EAGAIN; -ECONNRESET also where
// the peer has closed its end. No SIGPIPE.
ssize_t SendParts(int socket, const iovec* from, int count) noexcept;
// What has come, into some places; the same, and 0 at the end. A socket's own call: readv(2) looks at more than that.
ssize_t ReceiveParts(int socket, const iovec* to, int count) noexcept;

// Receives at most `size` bytes; every descriptor that came with them is owned in `fds` before anything else happens.
// 0 at the end of the stream, -1 if there is nothing (EAGAIN). Descriptors that this process has no room for are an
// error (EMFILE), and those that did arrive are closed.
ssize_t Receive(int socket, void* data, size_t size, std::vector<Fd>& fds);

// One datagram to a UNIX socket, with descriptors; a path that begins with @ is an abstract name. Throws SysError.
void SendDatagram(const std::string& path, const std::string& text, const std::vector<int>& fds = {});

}  // namespace vioctl::os
