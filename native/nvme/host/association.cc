#include "nvme/host/association.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "nvme/host/stamp.h"
#include "os/clock.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint32_t kAdminEntries = 32;
constexpr uint32_t kPage = 4096;                // of CAP.MPSMIN 0, what MDTS counts in
constexpr uint32_t kMaxTransferHere = 1 << 20;  // of one command, whatever MDTS says
constexpr uint32_t kSqeSize = 64, kIoccszUnit = 16, kMaxCapsule = 1 << 24;
constexpr uint32_t kConnectCapsule = 8192;  // data in an admin capsule that every target takes
constexpr uint32_t kCcEnable = 1, kCcQueueEntries = 6u << 16 | 4u << 20, kCcAllSets = 6u << 4, kCcShutdown = 1u << 14;
constexpr uint64_t kCapAllSets = 1ULL << 43;  // CAP.CSS bit 6
constexpr uint32_t kCstsReady = 1, kCstsFatal = 2, kCstsShutdown = 3u << 2, kCstsShutdownDone = 2u << 2;
constexpr uint64_t kCapTimeoutUnit = 500;  // ms
constexpr uint64_t kLongestPoll = 100, kShutdownMs = 2000;
constexpr uint32_t kMaxAnaGroups = 1024;
constexpr uint32_t kQuiesceMax = 60'000;     // ms that CQT is believed
constexpr uint32_t kRetryDelayUnit = 100;    // ms of CRDT
constexpr uint32_t kRetryDelayMax = 10'000;  // ms
constexpr size_t kMaxNamespaces = 1 << 16;
constexpr uint8_t kNidtEui64 = 1, kNidtNguid = 2, kNidtUuid = 3;
constexpr int kMinShift = 9, kMaxShift = 16;

template <size_t N>
bool Zero(const std::array<uint8_t, N>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
}

std::string StatusText(const char* what, Status status) {
  char text[96];
  snprintf(text, sizeof text, "%s: status %x/%02xh", what, (status >> 8) & 7, status & 0xff);
  return text;
}

}  // namespace

CommandError::CommandError(int err, const char* what, Status status, uint64_t result)
    : SysError(err, "nvme", StatusText(what, status)), status_(status), result_(result) {}

int ErrnoOf(Status status) {
  switch (status & ~kDnr & 0x7ff) {
    case kOk:
      return 0;
    case kInvalidOpcode & 0x7ff:
      return EOPNOTSUPP;
    case kInvalidNamespace & 0x7ff:
      return ENXIO;
    case kWriteProtected & 0x7ff:
      return EROFS;
    case kCapacity & 0x7ff:
      return ENOSPC;
    case kReservationConflict & 0x7ff:
      return EBADE;
    case kCompareFailed & 0x7ff:
      return EILSEQ;
    case kInvalidHost & 0x7ff:
    case kAuthenticationRequired & 0x7ff:
      return EACCES;
    case kConnectParameters & 0x7ff:
      return ECONNREFUSED;
    default:
      return EIO;
  }
}

bool NamespaceFacts::Same(const NamespaceFacts& other) const {
  return block_size == other.block_size && nguid == other.nguid && eui64 == other.eui64 && uuid == other.uuid;
}

NamespaceFacts ParseNamespace(uint32_t nsid, const IdNamespace& data) {
  NamespaceFacts facts;
  facts.nsid = nsid;
  facts.raw = data;
  if (data.nsze == 0) throw SysError(ENXIO, "nvme", "namespace " + std::to_string(nsid) + " is not active");
  const uint32_t index = (data.flbas & 0xfu) | ((data.flbas >> 1) & 0x30u);
  if (index > data.nlbaf || index >= std::size(data.lbafs)) throw SysError(EPROTO, "nvme", "FLBAS");
  const LbaFormat format = data.lbafs[index];
  if (format.ds < kMinShift || format.ds > kMaxShift || data.nsze > 1ULL << (62 - format.ds))
    throw SysError(EPROTO, "nvme", "the size of the namespace");
  if (format.ms != 0) throw SysError(ENOTSUP, "nvme", "a namespace with metadata");
  facts.blocks = data.nsze;
  facts.block_size = 1u << format.ds;
  facts.readonly = (data.nsattr & kNsattrWriteProtected) != 0;
  facts.group = data.anagrpid;
  memcpy(facts.nguid.data(), data.nguid, facts.nguid.size());
  memcpy(facts.eui64.data(), data.eui64, facts.eui64.size());
  return facts;
}

AnaState ParseAna(const uint8_t* log, size_t size, uint32_t group) {
  AnaHeader header;
  if (size < sizeof header) return kAnaOptimized;
  memcpy(&header, log, sizeof header);
  size_t at = sizeof header;
  for (uint32_t i = 0; i < header.ngrps; i++) {
    AnaGroup one;
    if (size - at < sizeof one) break;
    memcpy(&one, log + at, sizeof one);
    at += sizeof one;
    if (one.grpid == group) return static_cast<AnaState>(one.state & 0xf);
    const uint64_t names = 4ULL * one.nnsids;
    if (names > size - at) break;
    at += names;
  }
  return kAnaOptimized;
}

size_t AnaLogSize(const Controller& controller) { return sizeof(AnaHeader) + controller.groups * sizeof(AnaGroup); }

Sqe IdentifySqe(uint8_t cns, uint32_t nsid) {
  Sqe sqe{};
  sqe.opcode = kIdentify;
  sqe.nsid = nsid;
  sqe.cdw10 = cns;
  return sqe;
}

Sqe LogSqe(uint8_t lid, uint32_t bytes, uint8_t lsp) {
  Sqe sqe{};
  const uint32_t dwords = bytes / 4 - 1;
  sqe.opcode = kGetLogPage;
  sqe.nsid = kAllNamespaces;
  sqe.cdw10 = lid | static_cast<uint32_t>(lsp) << 8 | (dwords & 0xffff) << 16;
  sqe.cdw11 = dwords >> 16;
  return sqe;
}

Sqe FeatureSqe(uint8_t fid, uint32_t value) {
  Sqe sqe{};
  sqe.opcode = kSetFeatures;
  sqe.cdw10 = fid;
  sqe.cdw11 = value;
  return sqe;
}

// --- connecting

std::unique_ptr<Association> Association::Connect(const HostOptions& options, const Address& address, int stop) {
  std::unique_ptr<Association> made(new Association(options, address));
  const Wait wait{os::NowNs() + options.timeout_ms * os::kMs, stop};
  Connected answer;
  made->admin_ = made->Open(0, kAdminEntries, kDynamicCntlid, wait, answer);
  made->controller_.cntlid = answer.cntlid;
  made->Enable(wait);
  made->ReadController(wait);
  if (options.queues > 0) made->OpenIo(wait);
  return made;
}

std::unique_ptr<Queue> Association::Open(uint16_t qid, uint32_t entries, uint16_t cntlid, const Wait& wait,
                                         Connected& answer) {
  QueueOptions terms{.qid = qid,
                     .entries = entries,
                     .header_digest = options_.header_digest,
                     .data_digest = options_.data_digest,
                     .in_capsule = kConnectCapsule};
  auto queue = std::make_unique<Queue>(options_.dial(address_, wait), terms);
  queue->Negotiate(wait);
  ConnectData data{};
  memcpy(data.hostid, options_.hostid.data(), options_.hostid.size());
  data.cntlid = cntlid;
  memcpy(data.subnqn, options_.subnqn.data(), std::min(options_.subnqn.size(), kMaxNqn));
  memcpy(data.hostnqn, options_.hostnqn.data(), std::min(options_.hostnqn.size(), kMaxNqn));
  const iovec part{&data, sizeof data};
  Command connect;
  connect.sqe.opcode = kFabrics;
  connect.sqe.nsid = kConnect;
  connect.sqe.cdw10 = static_cast<uint32_t>(qid) << 16;
  connect.sqe.cdw11 = (entries - 1) | (options_.flow_control ? 0u : static_cast<uint32_t>(kSqFlowControlOff) << 16);
  connect.sqe.cdw12 = qid == 0 ? options_.keep_alive_ms : 0;
  connect.parts = &part;
  connect.count = 1;
  connect.length = sizeof data;
  connect.direction = kToController;
  const Cqe cqe = queue->Call(connect, wait);
  if (const Status status = connect.status()) {
    const int err = ErrnoOf(status);
    throw CommandError(err == EIO ? ECONNREFUSED : err, "connect", status, cqe.result);
  }
  answer = {qid, static_cast<uint16_t>(cqe.result), static_cast<uint16_t>(cqe.result >> 16)};
  if (options_.authenticate)
    options_.authenticate(*queue, answer, wait);
  else if (answer.authreq != 0)
    throw SysError(EACCES, "nvme", "the target asks for authentication");
  return queue;
}

Cqe Association::Run(const char* what, Sqe sqe, void* data, uint32_t size, const Wait& wait) {
  const iovec part{data, size};
  Command command;
  command.sqe = sqe;
  command.parts = &part;
  command.count = size > 0 ? 1 : 0;
  command.length = size;
  command.direction = size > 0 ? kToHost : kNoData;
  const Cqe cqe = admin_->Call(command, wait);
  if (const Status status = command.status()) throw CommandError(ErrnoOf(status), what, status, cqe.result);
  return cqe;
}

uint64_t Association::Property(uint32_t offset, bool wide, const Wait& wait) {
  Sqe sqe{};
  sqe.opcode = kFabrics;
  sqe.nsid = kPropertyGet;
  sqe.cdw10 = wide ? 1 : 0;
  sqe.cdw11 = offset;
  const uint64_t value = Run("property get", sqe, nullptr, 0, wait).result;
  return wide ? value : value & UINT32_MAX;
}

void Association::SetProperty(uint32_t offset, uint64_t value, const Wait& wait) {
  Sqe sqe{};
  sqe.opcode = kFabrics;
  sqe.nsid = kPropertySet;
  sqe.cdw11 = offset;
  sqe.cdw12 = static_cast<uint32_t>(value);
  sqe.cdw13 = static_cast<uint32_t>(value >> 32);
  Run("property set", sqe, nullptr, 0, wait);
}

void Association::Enable(const Wait& wait) {
  controller_.cap = Property(kPropertyCap, true, wait);
  const uint32_t sets = controller_.cap & kCapAllSets ? kCcAllSets : 0;
  SetProperty(kPropertyCc, kCcEnable | kCcQueueEntries | sets, wait);
  const uint64_t allowed = std::max<uint64_t>(1, (controller_.cap >> 24) & 0xff) * kCapTimeoutUnit;
  const uint64_t end = std::min(wait.deadline, os::NowNs() + allowed * os::kMs);
  for (uint64_t pause = 1;; pause = std::min(kLongestPoll, pause * 2)) {
    const uint64_t status = Property(kPropertyCsts, false, wait);
    if (status & kCstsFatal) throw SysError(EIO, "nvme", "the controller reports a fatal error (CSTS.CFS)");
    if (status & kCstsReady) break;
    if (os::NowNs() >= end) throw SysError(ETIMEDOUT, "nvme", "the controller does not become ready (CSTS.RDY)");
    if (!Wait::Sleep(pause * os::kMs, wait.stop)) throw SysError(ECANCELED, "nvme");
  }
  controller_.version = static_cast<uint32_t>(Property(kPropertyVs, false, wait));
}

void Association::ReadController(const Wait& wait) {
  IdController& raw = controller_.raw;
  Run("identify controller", IdentifySqe(kCnsController, 0), &raw, sizeof raw, wait);
  if (options_.refuse_own && IsOwn(raw)) throw SysError(ELOOP, "nvme", "the target is this process");
  if (raw.cntlid != controller_.cntlid) throw SysError(EPROTO, "nvme", "CNTLID of Identify is not that of Connect");
  const uint64_t mdts = raw.mdts == 0 ? kMaxTransferHere : static_cast<uint64_t>(kPage) << std::min<int>(raw.mdts, 20);
  controller_.max_transfer = static_cast<uint32_t>(std::min<uint64_t>(mdts, kMaxTransferHere));
  const uint64_t capsule = std::min<uint64_t>(static_cast<uint64_t>(raw.ioccsz) * kIoccszUnit, kMaxCapsule);
  controller_.in_capsule = raw.icdoff == 0 && capsule > kSqeSize ? static_cast<uint32_t>(capsule - kSqeSize) : 0;
  controller_.volatile_cache = (raw.vwc & 1) != 0;
  controller_.keep_alive = raw.kas != 0;
  controller_.namespace_events = (raw.oaes & kOaesNamespace) != 0;
  const bool ana = (raw.cmic & kCmicAna) != 0;
  controller_.ana_events = ana && (raw.oaes & kOaesAna) != 0;
  controller_.groups = ana ? std::clamp<uint32_t>(raw.nanagrpid, 1, kMaxAnaGroups) : 0;
  controller_.can_compare = (raw.oncs & kOncsCompare) != 0;
  controller_.can_discard = (raw.oncs & kOncsDsm) != 0;
  controller_.can_zero = (raw.oncs & kOncsWriteZeroes) != 0;
  controller_.aborts = raw.acl + 1u;
  controller_.quiesce_ms = std::min<uint32_t>(raw.cqt, kQuiesceMax);
  const uint16_t delays[] = {raw.crdt1, raw.crdt2, raw.crdt3};
  for (size_t i = 0; i < 3; i++) controller_.retry_delay_ms[i] = std::min(delays[i] * kRetryDelayUnit, kRetryDelayMax);
}

void Association::OpenIo(const Wait& wait) {
  const uint32_t asked = std::min(options_.queues, 0xFFFEu);
  const Cqe cqe = Run("number of queues", FeatureSqe(kFidQueues, (asked - 1) | (asked - 1) << 16), nullptr, 0, wait);
  const auto submission = static_cast<uint32_t>(cqe.result & 0xffff) + 1;
  const auto completion = static_cast<uint32_t>(cqe.result >> 16 & 0xffff) + 1;
  const uint32_t granted = std::min({asked, submission, completion});
  const uint32_t most = std::min<uint32_t>(static_cast<uint32_t>(controller_.cap & 0xffff) + 1,
                                           controller_.raw.maxcmd ? controller_.raw.maxcmd : 65536u);
  const uint32_t entries = std::max(2u, std::min(options_.entries, most));
  const uint32_t events = controller_.raw.oaes & (kOaesNamespace | (controller_.groups > 0 ? kOaesAna : 0));
  try {
    if (events != 0) Run("event configuration", FeatureSqe(kFidEvents, events), nullptr, 0, wait);
  } catch (const CommandError&) {
    // It tells what it likes, or nothing.
  }
  for (uint32_t qid = 1; qid <= granted; qid++) {
    Connected answer;
    io_.push_back(Open(static_cast<uint16_t>(qid), entries, controller_.cntlid, wait, answer));
    io_.back()->set_in_capsule(controller_.in_capsule);
  }
}

// --- what is asked of a controller that is connected

NamespaceFacts Association::Identify(uint32_t nsid, const Wait& wait) {
  IdNamespace data{};
  Run("identify namespace", IdentifySqe(kCnsNamespace, nsid), &data, sizeof data, wait);
  NamespaceFacts facts = ParseNamespace(nsid, data);
  std::array<uint8_t, 4096> list{};
  try {
    Run("namespace descriptors", IdentifySqe(kCnsDescriptors, nsid), list.data(), list.size(), wait);
  } catch (const CommandError&) {
    return facts;  // an old controller; NGUID and EUI64 are in the namespace's own data
  }
  for (size_t at = 0; at + 4 <= list.size() && list[at + 1] != 0;) {
    const uint8_t type = list[at], size = list[at + 1];
    const uint8_t* id = &list[at + 4];
    at += 4u + size;
    if (at > list.size()) throw SysError(EPROTO, "nvme", "namespace descriptors run beyond their data");
    if (type == kNidtEui64 && size == 8) memcpy(facts.eui64.data(), id, size);
    if (type == kNidtNguid && size == 16) memcpy(facts.nguid.data(), id, size);
    if (type == kNidtUuid && size == 16) memcpy(facts.uuid.data(), id, size);
  }
  return facts;
}

AnaState Association::StateOf(uint32_t group, const Wait& wait) {
  if (controller_.groups == 0) return kAnaOptimized;
  std::vector<uint8_t> log(AnaLogSize(controller_));
  Run("ANA log", LogSqe(kLidAna, static_cast<uint32_t>(log.size()), 1), log.data(), static_cast<uint32_t>(log.size()),
      wait);
  return ParseAna(log.data(), log.size(), group);
}

std::vector<uint32_t> Association::Namespaces(const Wait& wait) {
  std::vector<uint32_t> all;
  std::array<uint32_t, 1024> list{};
  while (all.size() < kMaxNamespaces) {
    Run("namespace list", IdentifySqe(kCnsNamespaces, all.empty() ? 0 : all.back()), list.data(), sizeof list, wait);
    for (const uint32_t nsid : list) {
      if (nsid == 0) return all;
      if (!all.empty() && nsid <= all.back()) throw SysError(EPROTO, "nvme", "the namespace list is not ascending");
      all.push_back(nsid);
    }
  }
  return all;
}

void Association::Shutdown(const Wait& wait) noexcept {
  try {
    io_.clear();
    const Wait brief{std::min(wait.deadline, os::NowNs() + kShutdownMs * os::kMs), wait.stop};
    const uint32_t sets = controller_.cap & kCapAllSets ? kCcAllSets : 0;
    SetProperty(kPropertyCc, kCcEnable | kCcQueueEntries | sets | kCcShutdown, brief);
    while ((Property(kPropertyCsts, false, brief) & kCstsShutdown) != kCstsShutdownDone)
      if (!Wait::Sleep(5 * os::kMs, brief.stop)) break;
  } catch (const std::exception&) {
    // It is gone, or does not answer: the connections end all the same.
  }
}

}  // namespace vioctl::nvme::host
