#include "nvme/host/secure.h"

#include <poll.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <optional>

#include "common/error.h"

namespace vioctl::nvme::host {
namespace {

class TlsStream final : public Stream {
 public:
  TlsStream(std::unique_ptr<Stream> below, crypto::Psk psk)
      : below_(std::move(below)), tls_(crypto::Tls::Client(std::move(psk))) {}
  ~TlsStream() override {
    tls_->Shutdown();
    Pump();
  }

  int fd() const override { return below_->fd(); }
  bool pending() const override { return tls_->pending(); }
  bool sending() const override { return !tls_->Unsent().empty(); }
  bool Push() override {
    const size_t before = tls_->Unsent().size();
    Pump();
    return tls_->Unsent().size() < before;
  }

  void Handshake(const Wait& wait) {
    while (true) {
      const auto step = tls_->Handshake();
      const bool sent = Pump();
      if (step == crypto::Tls::kDone && sent) return;
      if (step == crypto::Tls::kFailed) throw SysError(EKEYREJECTED, "TLS", tls_->reason());
      if (!sent) {
        wait.For(fd(), POLLOUT);
        continue;
      }
      const ssize_t got = Fetch();
      wait.Check();
      if (got == -EAGAIN) wait.For(fd(), POLLIN);
      if (got == 0) throw SysError(EKEYREJECTED, "TLS", "the target closed the connection");
      if (got < 0 && got != -EAGAIN) throw SysError(static_cast<int>(-got), "TLS");
    }
  }

  ssize_t Read(const iovec* to, int count) override {
    Pump();
    size_t total = 0, at = 0;
    int fetches = 0;
    for (int part = 0; part < count;) {
      const ssize_t got = tls_->Read(static_cast<uint8_t*>(to[part].iov_base) + at, to[part].iov_len - at);
      if (got > 0) {
        total += static_cast<size_t>(got);
        at += static_cast<size_t>(got);
        if (at < to[part].iov_len) continue;
        part++;
        at = 0;
      } else if (got == -EAGAIN) {
        // Records may have no data: the rest of them is left to the next round.
        const ssize_t more = fetches++ < crypto::Tls::kFetches ? Fetch() : -EAGAIN;
        if (more > 0) continue;
        if (total == 0) return more;
        break;
      } else {
        if (total == 0) return got;
        break;
      }
    }
    return static_cast<ssize_t>(total);
  }

  ssize_t Write(const iovec* from, int count) override {
    if (!Pump()) return -EAGAIN;
    size_t total = 0;
    for (int part = 0; part < count; part++) {
      for (size_t at = 0; at < from[part].iov_len;) {
        const ssize_t done =
            tls_->Write(static_cast<const uint8_t*>(from[part].iov_base) + at, from[part].iov_len - at);
        const bool waited = sending();  // else nothing would be different
        if (done == -EAGAIN && waited && Pump()) continue;
        if (done < 0) return total > 0 ? static_cast<ssize_t>(total) : done;
        at += static_cast<size_t>(done);
        total += static_cast<size_t>(done);
      }
    }
    Pump();  // the rest leaves by Push()
    return static_cast<ssize_t>(total);
  }

 private:
  // Sends ciphertext. True: all of it has left.
  bool Pump() {
    while (!tls_->Unsent().empty()) {
      const auto bytes = tls_->Unsent();
      const iovec one{const_cast<uint8_t*>(bytes.data()), bytes.size()};
      const ssize_t done = below_->Write(&one, 1);
      if (done <= 0) return false;
      tls_->Sent(static_cast<size_t>(done));
    }
    return true;
  }

  ssize_t Fetch() {
    const auto room = tls_->Room();
    if (room.empty()) return -EAGAIN;
    const iovec one{room.data(), room.size()};
    const ssize_t got = below_->Read(&one, 1);
    if (got > 0) tls_->Came(static_cast<size_t>(got));
    return got;
  }

  std::unique_ptr<Stream> below_;
  std::unique_ptr<crypto::Tls> tls_;
};

// Of all connections of a host, which any thread makes.
class KeyRing {
 public:
  explicit KeyRing(std::vector<crypto::Psk> keys) : keys_(std::move(keys)) {}

  std::unique_ptr<Stream> Connect(const Address& address, const Wait& wait) {
    const size_t first = taken_;
    std::optional<SysError> refused;
    for (size_t tries = 0; tries < keys_.size(); tries++) {
      const size_t at = (first + tries) % keys_.size();
      try {
        auto stream = std::make_unique<TlsStream>(Dial(address, wait), Copy(keys_[at]));
        stream->Handshake(wait);
        taken_ = at;
        return stream;
      } catch (const SysError& error) {
        if (!refused && error.err() != EKEYREJECTED) throw;
        if (error.err() == ECANCELED) throw;
        // The target judged the first one: that tells more than a later failure to connect.
        if (!refused) refused = error;
      }
    }
    throw *refused;
  }

 private:
  static crypto::Psk Copy(const crypto::Psk& psk) {
    crypto::Psk copy;
    copy.identity = psk.identity;
    copy.key = psk.key;
    copy.hash = psk.hash;
    return copy;
  }

  const std::vector<crypto::Psk> keys_;  // at least one
  std::atomic<size_t> taken_ = 0;
};

}  // namespace

Dialer SecureDialer(std::vector<crypto::Psk> keys) {
  return [ring = std::make_shared<KeyRing>(std::move(keys))](const Address& address, const Wait& wait) {
    return ring->Connect(address, wait);
  };
}

}  // namespace vioctl::nvme::host
