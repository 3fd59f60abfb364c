// The bytes below a queue: a TCP connection, or what wraps one (TLS).
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "os/fd.h"

namespace vioctl::nvme::host {

// How long something may take that waits for a peer, and a descriptor that ends it when it becomes readable.
struct Wait {
  uint64_t deadline;  // ns of os::NowNs()
  int stop = -1;

  // Waits until one of the events comes. Throws SysError: ETIMEDOUT, ECANCELED.
  void For(int fd, short events) const;
  // Throws the same if the time has run out, or it was stopped.
  void Check() const;
  // Sleeps. True: it was not stopped.
  static bool Sleep(uint64_t ns, int stop);
};

// Never waits: Read() and Write() give the bytes that moved, 0 at the end of what comes, or a negative errno (-EAGAIN).
class Stream {
 public:
  virtual ~Stream() = default;
  virtual int fd() const = 0;  // to poll
  virtual ssize_t Read(const iovec* to, int count) = 0;
  virtual ssize_t Write(const iovec* from, int count) = 0;
  // Whether Read() would give something although the descriptor is not readable.
  virtual bool pending() const { return false; }
  // Whether bytes that Write() has taken still wait for the descriptor; sends what it takes. True if anything left.
  virtual bool sending() const { return false; }
  virtual bool Push() { return false; }
};

// Where a controller is: a name or an address, and a port.
struct Address {
  std::string host;
  uint16_t port = 4420;
  bool operator==(const Address&) const = default;
  // `192.0.2.1:4420`, `[2001:db8::1]:4420`
  std::string Text() const;
};

// Connects, trying each address of a name. Throws SysError: EADDRNOTAVAIL of getaddrinfo, connect, ETIMEDOUT,
// ECANCELED.
std::unique_ptr<Stream> Dial(const Address& address, const Wait& wait);

// Dial(), or what puts something around a connection before the first PDU, such as TLS. May wait, and throws SysError.
using Dialer = std::function<std::unique_ptr<Stream>(const Address&, const Wait&)>;

}  // namespace vioctl::nvme::host
