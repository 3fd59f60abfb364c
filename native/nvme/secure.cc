// TLS between the socket and the PDUs of a connection. Without TLS, the bytes go straight through.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "nvme/connection.h"
#include "os/socket.h"

namespace vioctl::nvme {
namespace {

constexpr uint8_t kTlsHandshake = 0x16;  // first byte of a TLS connection; an ICReq begins with 0

}  // namespace

// Decides by the first byte what the connection is. False: it is not there yet, or the connection cannot be.
bool Connection::Secure() {
  if (use_ == TlsUse::kNone) {
    plain_ = true;
    return true;
  }
  uint8_t first = 0;
  const ssize_t got = ::recv(fd_.get(), &first, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got <= 0) {
    if (got == 0) errno = 0;
    return false;
  }
  if (first == kTlsHandshake) {
    tls_ = crypto::Tls::Server();
    return true;
  }
  if (use_ == TlsUse::kAllow) {
    plain_ = true;
    return true;
  }
  fault_ = "no TLS, which this listener requires";
  errno = EPROTO;
  return false;
}

// Goes on with the handshake. False: nothing can be read yet, or ever; errno says which.
bool Connection::Shake() {
  const auto step = tls_->Handshake();
  Pump();  // what the peer waits for, or the alert
  switch (step) {
    case crypto::Tls::kDone:
      return true;
    case crypto::Tls::kFailed:
      fault_ = tls_->reason();
      errno = EPROTO;
      return false;
    case crypto::Tls::kKey:
      if (!std::exchange(asking_, true)) {
        Event event{};
        event.kind = Event::kKey;
        event.connection = id_;
        event.identities = tls_->identities();
        worker_.target().Push(std::move(event));
      }
      break;
    case crypto::Tls::kMore:
      break;
  }
  errno = EAGAIN;
  return false;
}

// More ciphertext from the socket. 0: the end; -1: errno says why there is none.
ssize_t Connection::Fetch() {
  const auto room = tls_->Room();
  if (room.empty()) {  // what we owe the host has to leave before more is taken
    Pump();
    errno = EAGAIN;
    return -1;
  }
  ssize_t got;
  do got = ::recv(fd_.get(), room.data(), room.size(), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got > 0) tls_->Came(static_cast<size_t>(got));
  return got;
}

// As readv(2). The handshake is part of it.
ssize_t Connection::Receive(const iovec* to, int count) {
  if (!tls_ && !plain_ && !Secure()) return errno == 0 ? 0 : -1;
  if (!tls_ || state_ == kDraining) {
    const ssize_t got = os::ReceiveParts(fd_.get(), to, count);
    if (got < 0) errno = static_cast<int>(-got);
    return got < 0 ? -1 : got;
  }
  size_t total = 0, at = 0;
  int fetches = 0;
  for (int part = 0; part < count;) {
    ssize_t step = -EAGAIN;
    if (tls_->established() || Shake())
      step = tls_->Read(static_cast<uint8_t*>(to[part].iov_base) + at, to[part].iov_len - at);
    else if (errno != EAGAIN)
      return -1;
    else if (asking_)
      return -1;
    if (step > 0) {
      total += static_cast<size_t>(step);
      at += static_cast<size_t>(step);
      if (at < to[part].iov_len) continue;
      part++;
      at = 0;
    } else if (step == -EAGAIN) {
      // Records may have no data: others have their turn before the rest of them is read, which epoll tells of again.
      ssize_t got = -1;
      if (fetches++ < crypto::Tls::kFetches)
        got = Fetch();
      else
        errno = EAGAIN;
      if (got > 0) continue;
      if (total == 0) return got;
      break;
    } else {
      if (total > 0) break;  // it says so again
      if (step == 0) return 0;
      Pump();
      fault_ = tls_->reason();
      errno = EPROTO;
      return -1;
    }
  }
  return static_cast<ssize_t>(total);
}

// Sends ciphertext that waits.
void Connection::Pump() {
  while (tls_ && !tls_->Unsent().empty()) {
    const auto bytes = tls_->Unsent();
    const ssize_t done = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return;  // a lost connection is noticed by reading
    progress_ = worker_.now();
    tls_->Sent(static_cast<size_t>(done));
  }
}

// As sendmsg(2): the bytes that were taken, in records of full size. What is shorter is put together first.
ssize_t Connection::Transmit(const iovec* from, int count) {
  if (!tls_) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(from);
    message.msg_iovlen = static_cast<size_t>(count);
    return ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  uint8_t record[crypto::Tls::kRecord];
  size_t total = 0, at = 0;
  for (int part = 0; part < count;) {
    // without losing the place if it is not taken
    size_t size = 0, next_at = at;
    int next = part;
    const bool whole = from[part].iov_len - at >= sizeof record;
    const uint8_t* bytes = whole ? static_cast<const uint8_t*>(from[part].iov_base) + at : record;
    while (next < count && size < sizeof record) {
      const size_t some = std::min(from[next].iov_len - next_at, sizeof record - size);
      if (!whole) memcpy(record + size, static_cast<const uint8_t*>(from[next].iov_base) + next_at, some);
      size += some;
      next_at += some;
      if (next_at < from[next].iov_len) continue;
      next++;
      next_at = 0;
    }
    ssize_t done = tls_->Write(bytes, size);
    if (done == -EAGAIN) {
      Pump();
      done = tls_->Write(bytes, size);
    }
    if (done < 0) {
      if (total > 0) break;
      errno = static_cast<int>(-done);
      return -1;
    }
    total += static_cast<size_t>(done);
    if (static_cast<size_t>(done) < size) break;
    part = next;
    at = next_at;
  }
  Pump();
  return static_cast<ssize_t>(total);
}

void Connection::AnswerKey(crypto::Psk psk) {
  if (state_ == kClosed || state_ == kDraining || !tls_ || !asking_) return;
  asking_ = false;
  tls_->Answer(std::move(psk));
  Readable();
}

void Connection::More() {
  more_ = false;
  if (state_ == kClosed || state_ == kDraining) return;
  Readable();
}

}  // namespace vioctl::nvme
