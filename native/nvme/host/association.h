// An association: a controller that is enabled, with its admin queue and I/O queues connected. Making one waits for the
// target step by step, in a thread of whoever wants it; after that nothing here waits, except Shutdown().
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/error.h"
#include "nvme/host/queue.h"

namespace vioctl::nvme::host {

// A command that the controller has ended with an error.
class CommandError : public SysError {
 public:
  CommandError(int err, const char* what, Status status, uint64_t result = 0);
  Status status() const { return status_; }
  // Command-specific.
  uint64_t result() const { return result_; }

 private:
  Status status_;
  uint64_t result_;
};

// The errno that says best what a status means.
int ErrnoOf(Status status);

// What Connect has told of a queue.
struct Connected {
  uint16_t qid = 0, cntlid = 0;
  uint16_t authreq = 0;  // AUTHREQ: not 0 if the host has to authenticate
};

struct HostOptions {
  std::string hostnqn, subnqn;
  std::array<uint8_t, 16> hostid{};
  uint32_t queues = 1;     // I/O queues wanted; 0: admin work alone
  uint32_t entries = 128;  // of each
  uint32_t keep_alive_ms = 5000;
  uint64_t timeout_ms = 30'000;  // of connecting, and of each command
  bool refuse_own = false;       // ELOOP for a target of this process
  bool header_digest = false, data_digest = false, flow_control = true;

  Dialer dial = Dial;
  // Authenticates a queue behind its Connect, before any other command. Throws SysError. Without it, a target that asks
  // for authentication is EACCES.
  std::function<void(Queue&, const Connected&, const Wait&)> authenticate;
};

// What Identify Controller says, checked and in units of ours.
struct Controller {
  uint16_t cntlid = 0;
  uint64_t cap = 0;
  uint32_t version = 0;
  uint32_t max_transfer = 0;  // bytes of one command
  uint32_t in_capsule = 0;    // bytes of data in a command capsule of an I/O queue
  uint32_t groups = 0;        // of the ANA log; 0: it has none
  bool volatile_cache = false, keep_alive = false, namespace_events = false, ana_events = false;
  bool can_compare = false, can_discard = false, can_zero = false;
  uint32_t aborts = 1;                     // Abort commands at a time
  uint32_t quiesce_ms = 0;                 // commands of a lost association may be carried out so long
  std::array<uint32_t, 3> retry_delay_ms;  // of CRD 1 to 3
  IdController raw{};
};

// What Identify Namespace says.
struct NamespaceFacts {
  uint32_t nsid = 0;
  uint64_t blocks = 0;
  uint32_t block_size = 512;
  bool readonly = false;
  uint32_t group = 0;  // of ANA
  std::array<uint8_t, 16> nguid{}, uuid{};
  std::array<uint8_t, 8> eui64{};
  IdNamespace raw{};

  uint64_t size() const { return blocks * block_size; }
  // Whether both can be one namespace: their identifiers and block sizes are equal.
  bool Same(const NamespaceFacts& other) const;
};

// Takes Identify data apart. Throws SysError: ENXIO for a namespace that is not active, ENOTSUP for metadata, EPROTO.
NamespaceFacts ParseNamespace(uint32_t nsid, const IdNamespace& data);
// The state of a group in an ANA log; kAnaOptimized if the log does not name it.
AnaState ParseAna(const uint8_t* log, size_t size, uint32_t group);
// Bytes of an ANA log without namespaces.
size_t AnaLogSize(const Controller& controller);

// Commands whose answers are read elsewhere.
Sqe IdentifySqe(uint8_t cns, uint32_t nsid);
Sqe LogSqe(uint8_t lid, uint32_t bytes, uint8_t lsp = 0);
Sqe FeatureSqe(uint8_t fid, uint32_t value);

class Association {
 public:
  // Dials, connects all queues, enables the controller and identifies it. Throws SysError and CommandError.
  static std::unique_ptr<Association> Connect(const HostOptions& options, const Address& address, int stop = -1);

  Queue& admin() { return *admin_; }
  std::vector<std::unique_ptr<Queue>>& io() { return io_; }
  const Controller& controller() const { return controller_; }
  const Address& address() const { return address_; }

  // Waits for the answers.
  NamespaceFacts Identify(uint32_t nsid, const Wait& wait);
  AnaState StateOf(uint32_t group, const Wait& wait);
  std::vector<uint32_t> Namespaces(const Wait& wait);
  // Normal shutdown, waited for briefly. Never throws.
  void Shutdown(const Wait& wait) noexcept;

 private:
  Association(const HostOptions& options, const Address& address) : options_(options), address_(address) {}

  std::unique_ptr<Queue> Open(uint16_t qid, uint32_t entries, uint16_t cntlid, const Wait& wait, Connected& answer);
  Cqe Run(const char* what, Sqe sqe, void* data, uint32_t size, const Wait& wait);
  uint64_t Property(uint32_t offset, bool wide, const Wait& wait);
  void SetProperty(uint32_t offset, uint64_t value, const Wait& wait);
  void Enable(const Wait& wait);
  void ReadController(const Wait& wait);
  void OpenIo(const Wait& wait);

  const HostOptions options_;
  const Address address_;
  Controller controller_;
  std::unique_ptr<Queue> admin_;
  std::vector<std::unique_ptr<Queue>> io_;
};

}  // namespace vioctl::nvme::host
