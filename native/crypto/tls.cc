#include "crypto/tls.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/error.h"
#include "crypto/openssl.h"

namespace vioctl::crypto {
namespace {

// Numbers of OpenSSL's headers.
constexpr int kTls13 = 0x0304;
constexpr int kMinVersion = 123, kMaxVersion = 124, kSessionCache = 44, kMode = 33;   // SSL_CTRL_*
constexpr long kPartialWrite = 1, kMovingBuffer = 2, kReleaseBuffers = 16;            // SSL_MODE_*
constexpr uint64_t kNoTicket = 1 << 14, kNoRenegotiation = 1 << 30;                   // SSL_OP_*
constexpr int kWantRead = 2, kWantWrite = 3, kZeroReturn = 6, kWantClientHello = 11;  // SSL_ERROR_*
constexpr int kPskExtension = 41, kHelloRetry = -1, kHelloOk = 1, kHelloError = 0;
constexpr int kAlertFailure = 40, kAlertUnknownPsk = 115;
constexpr int kBioSource = 0x0400, kBioFlush = 11, kBioRead = 1, kBioWrite = 2, kBioRetry = 8;
constexpr char kBothSuites[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";

// The cipher suite that goes with a hash.
const char* SuiteOf(int hash) { return hash == 2 ? "TLS_AES_256_GCM_SHA384" : "TLS_AES_128_GCM_SHA256"; }

}  // namespace

Psk& Psk::operator=(Psk&& other) noexcept {
  Wipe();
  identity = std::move(other.identity);
  key = std::move(other.key);
  hash = other.hash;
  return *this;
}

void Psk::Wipe() {
  os::SecretBytes().swap(key);  // its place is wiped, and of use to others
}

// What OpenSSL calls. Each SSL has its Tls as extra data 0, each BIO as its data.
struct Tls::Callbacks {
  static Tls& Of(const void* ssl) { return *static_cast<Tls*>(Ssl::Get()->getExData(ssl, 0)); }

  static int Write(void* bio, const char* data, size_t size, size_t* written) {
    const Ssl* f = Ssl::Get();
    auto* tls = static_cast<Tls*>(f->bioData(bio));
    f->bioClearFlags(bio, kBioRead | kBioWrite | kBioRetry);
    if (tls->sent_ > 0 && tls->sent_ == tls->out_.size()) {
      tls->out_.clear();
      tls->sent_ = 0;
    }
    const size_t room = kOut - std::min(kOut, tls->out_.size());
    const size_t some = std::min(size, room);
    if (some == 0) {
      f->bioSetFlags(bio, kBioWrite | kBioRetry);
      return 0;
    }
    // as bytes of the vector's own type: others are copied one by one
    const auto* bytes = reinterpret_cast<const uint8_t*>(data);
    tls->out_.insert(tls->out_.end(), bytes, bytes + some);
    *written = some;
    return 1;
  }

  static int Read(void* bio, char* data, size_t size, size_t* got) {
    const Ssl* f = Ssl::Get();
    auto* tls = static_cast<Tls*>(f->bioData(bio));
    f->bioClearFlags(bio, kBioRead | kBioWrite | kBioRetry);
    const size_t some = std::min(size, tls->in_end_ - tls->in_at_);
    if (some == 0) {
      f->bioSetFlags(bio, kBioRead | kBioRetry);
      return 0;
    }
    memcpy(data, tls->in_.data() + tls->in_at_, some);
    tls->in_at_ += some;
    *got = some;
    return 1;
  }

  static long Control(void*, int what, long, void*) { return what == kBioFlush ? 1 : 0; }

  // The keys of a host are asked for before anything is computed for it.
  static int Hello(void* ssl, int* alert, void*) {
    const Ssl* f = Ssl::Get();
    Tls& tls = Of(ssl);
    if (tls.answered_) {
      *alert = kAlertUnknownPsk;
      if (tls.psk_.key.empty()) return kHelloError;
      return f->setSuites(ssl, SuiteOf(tls.psk_.hash)) == 1 ? kHelloOk : kHelloError;
    }
    const uint8_t* data = nullptr;
    size_t size = 0;
    *alert = kAlertFailure;
    if (f->helloExtension(ssl, kPskExtension, &data, &size) != 1 || size < 2) return kHelloError;
    const size_t end = std::min<size_t>(size, 2 + (size_t{data[0]} << 8 | data[1]));
    for (size_t at = 2; at + 2 <= end && tls.identities_.size() < kMaxIdentities;) {
      const size_t length = size_t{data[at]} << 8 | data[at + 1];
      at += 2;
      if (length + 4 > end - at) break;
      if (length <= kMaxIdentity) tls.identities_.emplace_back(reinterpret_cast<const char*>(data + at), length);
      at += length + 4;
    }
    if (tls.identities_.empty()) return kHelloError;
    tls.asked_ = true;
    return kHelloRetry;
  }

  static void* Session(void* ssl, const Psk& psk) {
    const Ssl* f = Ssl::Get();
    const uint8_t id[2] = {0x13, static_cast<uint8_t>(psk.hash == 2 ? 0x02 : 0x01)};
    const void* cipher = f->cipherFind(ssl, id);
    void* session = cipher ? f->sessionNew() : nullptr;
    if (!session) return nullptr;
    if (f->sessionKey(session, psk.key.data(), psk.key.size()) == 1 && f->sessionCipher(session, cipher) == 1 &&
        f->sessionVersion(session, kTls13) == 1)
      return session;
    f->sessionFree(session);
    return nullptr;
  }

  static int Find(void* ssl, const uint8_t* identity, size_t size, void** session) {
    const Psk& psk = Of(ssl).psk_;
    *session = nullptr;
    if (psk.key.empty() || size != psk.identity.size() || memcmp(identity, psk.identity.data(), size) != 0) return 1;
    *session = Session(ssl, psk);
    return *session ? 1 : 0;
  }

  static int Use(void* ssl, const void*, const uint8_t** identity, size_t* size, void** session) {
    const Psk& psk = Of(ssl).psk_;
    *session = Session(ssl, psk);
    *identity = reinterpret_cast<const uint8_t*>(psk.identity.data());
    *size = psk.identity.size();
    return *session ? 1 : 0;
  }

  // One context for each side and one kind of BIO, for ever: connections of any thread use them.
  struct Shared {
    void* server = nullptr;
    void* client = nullptr;
    void* method = nullptr;

    static const Shared& Get() {
      static const Shared shared;
      return shared;
    }

   private:
    Shared() {
      const Ssl* f = Ssl::Get();
      if (!f) return;
      method = f->bioMethodNew(f->bioNewIndex() | kBioSource, "vioctl");
      server = Context(f->serverMethod());
      client = Context(f->clientMethod());
      if (!method || !server || !client) return;
      f->bioMethodWrite(method, Write);
      f->bioMethodRead(method, Read);
      f->bioMethodControl(method, Control);
      f->contextHello(server, Hello, nullptr);
      f->contextFind(server, Find);
      f->contextUse(client, Use);
    }
    static void* Context(const void* method) {
      const Ssl* f = Ssl::Get();
      void* context = f->contextNew(method);
      if (!context) return nullptr;
      f->contextControl(context, kMinVersion, kTls13, nullptr);
      f->contextControl(context, kMaxVersion, kTls13, nullptr);
      f->contextControl(context, kSessionCache, 0, nullptr);
      f->contextControl(context, kMode, kPartialWrite | kMovingBuffer | kReleaseBuffers, nullptr);
      f->contextOptions(context, kNoTicket | kNoRenegotiation);
      f->contextSuites(context, kBothSuites);
      f->contextTickets(context, 0);
      return context;
    }
  };
};

bool Tls::Available() {
  if (!Ssl::Get()) return false;
  const auto& shared = Callbacks::Shared::Get();
  return shared.server && shared.client && shared.method;
}

Tls::Tls(bool server) : server_(server) {
  if (!Available()) throw SysError(ENOTSUP, "TLS", "this Node does not export OpenSSL");
  const Ssl* f = Ssl::Get();
  const auto& shared = Callbacks::Shared::Get();
  ssl_ = f->create(server ? shared.server : shared.client);
  void* bio = ssl_ ? f->bioNew(shared.method) : nullptr;
  if (!bio) {
    if (ssl_) f->destroy(ssl_);
    throw SysError(ENOMEM, "TLS");
  }
  f->bioSetData(bio, this);
  f->bioSetInit(bio, 1);
  f->setBio(ssl_, bio, bio);  // which owns it
  f->setExData(ssl_, 0, this);
  if (server)
    f->acceptState(ssl_);
  else
    f->connectState(ssl_);
}

Tls::~Tls() { Ssl::Get()->destroy(ssl_); }

std::unique_ptr<Tls> Tls::Server() { return std::unique_ptr<Tls>(new Tls(true)); }

std::unique_ptr<Tls> Tls::Client(Psk psk) {
  std::unique_ptr<Tls> tls(new Tls(false));
  if (psk.key.empty() || Ssl::Get()->setSuites(tls->ssl_, SuiteOf(psk.hash)) != 1) throw SysError(EINVAL, "TLS", "key");
  tls->psk_ = std::move(psk);
  return tls;
}

// The meaning of a result that is no success: -EAGAIN, 0 for the end, -EPROTO.
int Tls::Failed(int result) {
  const Ssl* f = Ssl::Get();
  switch (f->getError(ssl_, result)) {
    case kWantRead:
      drained_ = true;
      return -EAGAIN;
    case kWantWrite:
      return -EAGAIN;
    case kZeroReturn:
      drained_ = true;
      return 0;
    default:
      break;
  }
  const char* text = f->reasonText(f->peekError());
  reason_ = text ? text : "no reason given";  // of OpenSSL's table, which lives as long as the process
  f->clearErrors();
  drained_ = true;
  closed_ = true;
  return -EPROTO;
}

Tls::Step Tls::Handshake() {
  if (established_) return kDone;
  if (closed_) return kFailed;
  const Ssl* f = Ssl::Get();
  f->clearErrors();
  const int result = f->handshake(ssl_);
  if (result == 1) {
    // A connection by a certificate would prove nothing.
    if (f->reused(ssl_) != 1) {
      reason_ = "not by a pre-shared key";
      closed_ = true;
      return kFailed;
    }
    ForgetKey();
    established_ = true;
    drained_ = false;
    return kDone;
  }
  if (server_ && asked_ && !answered_ && f->getError(ssl_, result) == kWantClientHello) return kKey;
  return Failed(result) == -EAGAIN ? kMore : (closed_ = true, kFailed);
}

// The connection has keys of its own now. Without tickets, OpenSSL has no use for its copy of the PSK any more, but
// keeps it.
void Tls::ForgetKey() {
  const Ssl* f = Ssl::Get();
  const std::vector<uint8_t> zeroes(psk_.key.size());
  if (void* session = f->session(ssl_)) f->sessionKey(session, zeroes.data(), zeroes.size());
  psk_.Wipe();
  identities_.clear();
}

void Tls::Answer(Psk psk) {
  psk_ = std::move(psk);
  answered_ = true;
}

std::span<uint8_t> Tls::Room() {
  if (in_at_ < in_end_) return {};
  in_at_ = in_end_ = 0;
  const size_t size = established_ ? kIn : kRecord + 512;  // a stranger gets little
  if (in_.size() < size) in_.resize(size);
  return in_;
}

void Tls::Came(size_t size) {
  in_at_ = 0;
  in_end_ = size;
  drained_ = false;
}

void Tls::Sent(size_t size) {
  sent_ += size;
  if (sent_ < out_.size()) return;
  out_.clear();
  sent_ = 0;
}

ssize_t Tls::Read(void* to, size_t size) {
  if (closed_) return -EPROTO;
  const Ssl* f = Ssl::Get();
  f->clearErrors();
  size_t got = 0;
  const int result = f->read(ssl_, to, size, &got);
  if (result == 1) return static_cast<ssize_t>(got);
  return Failed(result);
}

ssize_t Tls::Write(const void* from, size_t size) {
  if (closed_) return -EPROTO;
  if (!HasRoom()) return -EAGAIN;
  const Ssl* f = Ssl::Get();
  f->clearErrors();
  size_t done = 0;
  const int result = f->write(ssl_, from, std::min(size, kRecord), &done);
  if (result == 1) return static_cast<ssize_t>(done);
  const bool drained = drained_;
  const int error = Failed(result);
  drained_ = drained;
  return error == 0 ? -EPROTO : error;
}

void Tls::Shutdown() {
  if (!established_ || closed_) return;
  const Ssl* f = Ssl::Get();
  f->clearErrors();
  f->shutdown(ssl_);
  f->clearErrors();
}

}  // namespace vioctl::crypto
