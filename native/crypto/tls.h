// One end of a TLS 1.3 connection with a pre-shared key (NVMe/TCP transport specification 1.0, 3.6.1), without a
// socket: bytes of the peer go in, bytes for the peer come out. By the OpenSSL that Node exports.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "os/secrets.h"

namespace vioctl::crypto {

// A key as TLS takes it. It is wiped when it goes.
struct Psk {
  std::string identity;
  os::SecretBytes key;  // 32 or 48 bytes
  int hash = 1;         // 1: SHA-256 with AES-128-GCM, 2: SHA-384 with AES-256-GCM

  Psk() = default;
  Psk(Psk&&) = default;
  Psk& operator=(Psk&& other) noexcept;
  ~Psk() { Wipe(); }
  void Wipe();
};

class Tls {
 public:
  static constexpr size_t kRecord = 16384;              // plaintext of a record at most
  static constexpr size_t kIn = 64 << 10;               // ciphertext that is kept until it is read
  static constexpr size_t kOut = 16 * (kRecord + 512);  // ciphertext that waits for the socket
  static constexpr int kFetches = 16;                   // turns of a socket that are read at a time
  static constexpr size_t kMaxIdentities = 4;           // that a host may offer at a time; more are not looked at
  static constexpr size_t kMaxIdentity = 600;           // bytes: two NQNs and a digest

  // Whether this Node has all of OpenSSL that is needed.
  static bool Available();
  // Throws SysError: ENOTSUP, ENOMEM.
  static std::unique_ptr<Tls> Server();
  static std::unique_ptr<Tls> Client(Psk psk);
  ~Tls();
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;

  enum Step : uint8_t { kDone, kMore, kKey, kFailed };
  // Goes on with the handshake. kMore: bytes of the peer are needed; kKey: of a server, Answer() is needed once.
  Step Handshake();
  bool established() const { return established_; }
  // Identities that the host offers, when kKey was returned.
  const std::vector<std::string>& identities() const { return identities_; }
  // The key of one of them, or one without bytes if none is known.
  void Answer(Psk psk);
  // Why the handshake or the connection has failed.
  const char* reason() const { return reason_; }

  // Where bytes of the peer are to be put, and how many have come. Empty while earlier ones are not read.
  std::span<uint8_t> Room();
  void Came(size_t size);
  // What waits for the socket, and how much of it has left.
  std::span<const uint8_t> Unsent() const { return {out_.data() + sent_, out_.size() - sent_}; }
  void Sent(size_t size);

  // Plaintext. Bytes read; 0: the peer has ended the connection; -EAGAIN: more has to come; -EPROTO.
  ssize_t Read(void* to, size_t size);
  // Takes up to a record. -EAGAIN: what waits has to leave first; -EPROTO.
  ssize_t Write(const void* from, size_t size);
  // Whether Read() may give something without more bytes of the peer.
  bool pending() const { return !drained_; }
  // Tells the peer that nothing more comes.
  void Shutdown();

 private:
  struct Callbacks;
  Tls(bool server);
  bool HasRoom() const { return kOut - out_.size() >= kRecord + 512; }
  int Failed(int result);
  void ForgetKey();

  void* ssl_ = nullptr;
  const bool server_;
  bool established_ = false, answered_ = false, asked_ = false, drained_ = true, closed_ = false;
  Psk psk_;
  std::vector<std::string> identities_;
  const char* reason_ = "";
  std::vector<uint8_t> in_, out_;
  size_t in_at_ = 0, in_end_ = 0, sent_ = 0;
};

}  // namespace vioctl::crypto
