// Made by npm run gen from src/nvme/wire. Change its tables, or scripts/nvme-wire.ts.
// clang-format off
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

namespace vioctl::nvme {

static_assert(std::endian::native == std::endian::little,
              "NVMe is little-endian, and so are the machines we build for");

// PDU types (NVMe/TCP transport specification, section 3.6).
enum PduType : uint8_t {
  kIcReq = 0x00,
  kIcResp = 0x01,
  kH2cTermReq = 0x02,
  kC2hTermReq = 0x03,
  kCapsuleCmd = 0x04,
  kCapsuleResp = 0x05,
  kH2cData = 0x06,
  kC2hData = 0x07,
  kR2t = 0x09,
};

// FLAGS of the common header.
enum PduFlag : uint8_t {
  kHdgstFlag = 0x01,
  kDdgstFlag = 0x02,
  kLastPdu = 0x04,
  kSuccess = 0x08,
};

// What the header of a type of PDU may say.
enum Payload : uint8_t { kNoPayload, kMayPayload, kPayload };
struct PduRule {
  uint8_t type;
  bool to_controller;  // else to the host
  uint8_t hlen;
  uint8_t flags;  // that may be set
  Payload payload;
  bool digests;  // apply once they are agreed
};
inline constexpr PduRule kPduRules[] = {
    {0x00, true, 128, 0x00, kNoPayload, false},  // ICReq
    {0x01, false, 128, 0x00, kNoPayload, false},  // ICResp
    {0x02, true, 24, 0x00, kMayPayload, false},  // H2CTermReq
    {0x03, false, 24, 0x00, kMayPayload, false},  // C2HTermReq
    {0x04, true, 72, 0x03, kMayPayload, true},  // CapsuleCmd
    {0x05, false, 24, 0x01, kNoPayload, true},  // CapsuleResp
    {0x06, true, 24, 0x07, kPayload, true},  // H2CData
    {0x07, false, 24, 0x0F, kPayload, true},  // C2HData
    {0x09, false, 24, 0x01, kNoPayload, true},  // R2T
};

// Fatal error status of a TermReq.
enum Fes : uint16_t {
  kFesHeader = 0x01,
  kFesSequence = 0x02,
  kFesHeaderDigest = 0x03,
  kFesRange = 0x04,
  kFesLimit = 0x05,
  kFesUnsupported = 0x06,
};

#pragma pack(push, 1)

struct CommonHeader {
  uint8_t type;
  uint8_t flags;
  uint8_t hlen;
  uint8_t pdo;
  uint32_t plen;
};
static_assert(sizeof(CommonHeader) == 8);

struct IcReq {
  CommonHeader ch;
  uint16_t pfv;
  uint8_t hpda;
  uint8_t dgst;
  uint32_t maxr2t;
  uint8_t reserved0[112];
};
static_assert(sizeof(IcReq) == 128);

struct IcResp {
  CommonHeader ch;
  uint16_t pfv;
  uint8_t cpda;
  uint8_t dgst;
  uint32_t maxh2cdata;
  uint8_t reserved0[112];
};
static_assert(sizeof(IcResp) == 128);

struct TermReq {
  CommonHeader ch;
  uint16_t fes;
  uint32_t fei;
  uint8_t reserved0[10];
};
static_assert(sizeof(TermReq) == 24);

constexpr uint32_t kTermReqMin = 24, kTermReqMax = 152;

// SGL descriptor: id is type in bits 7:4 and sub type in bits 3:0.
struct Sgl {
  uint64_t address;
  uint32_t length;
  uint8_t reserved0[3];
  uint8_t id;
};
static_assert(sizeof(Sgl) == 16);

constexpr uint8_t kSglInCapsule = 0x01;      // the address is an offset into the capsule's data
constexpr uint8_t kSglCommandBuffer = 0x5A;  // data moves in data PDUs

// Submission queue entry. flags: bits 1:0 FUSE, 7:6 PSDT. nsid of a fabrics command: FCTYPE in the lowest byte.
struct Sqe {
  uint8_t opcode;
  uint8_t flags;
  uint16_t cid;
  uint32_t nsid;
  uint32_t cdw2;
  uint32_t cdw3;
  uint64_t mptr;
  Sgl sgl;
  uint32_t cdw10;
  uint32_t cdw11;
  uint32_t cdw12;
  uint32_t cdw13;
  uint32_t cdw14;
  uint32_t cdw15;

  uint64_t slba() const { return cdw10 | static_cast<uint64_t>(cdw11) << 32; }
};
static_assert(sizeof(Sqe) == 64);

// Completion queue entry. status: bit 0 phase, 8:1 SC, 11:9 SCT, 14 more, 15 DNR.
struct Cqe {
  uint64_t result;
  uint16_t sqhd;
  uint16_t sqid;
  uint16_t cid;
  uint16_t status;
};
static_assert(sizeof(Cqe) == 16);

struct CapsuleCmd {
  CommonHeader ch;
  Sqe sqe;
};
static_assert(sizeof(CapsuleCmd) == 72);

struct CapsuleResp {
  CommonHeader ch;
  Cqe cqe;
};
static_assert(sizeof(CapsuleResp) == 24);

// H2CData and C2HData. For C2HData, ttag is reserved.
struct Data {
  CommonHeader ch;
  uint16_t cccid;
  uint16_t ttag;
  uint32_t datao;
  uint32_t datal;
  uint8_t reserved0[4];
};
static_assert(sizeof(Data) == 24);

static_assert(sizeof(Data) == 24);

struct R2t {
  CommonHeader ch;
  uint16_t cccid;
  uint16_t ttag;
  uint32_t r2to;
  uint32_t r2tl;
  uint8_t reserved0[4];
};
static_assert(sizeof(R2t) == 24);

// Range of Dataset Management (NVM command set, 3.2.3).
struct DsmRange {
  uint32_t attributes;
  uint32_t nlb;
  uint64_t slba;
};
static_assert(sizeof(DsmRange) == 16);

// Source range of Copy, descriptor format 0 (NVM command set, 3.2.2). nlb is 0's based.
struct CopyRange {
  uint8_t reserved0[8];
  uint64_t slba;
  uint16_t nlb;
  uint8_t reserved1[14];
};
static_assert(sizeof(CopyRange) == 32);

// Data of Connect.
struct ConnectData {
  uint8_t hostid[16];
  uint16_t cntlid;
  uint8_t reserved0[238];
  uint8_t subnqn[256];
  uint8_t hostnqn[256];
  uint8_t reserved1[256];
};
static_assert(sizeof(ConnectData) == 1024);

// Identify Controller and Identify Namespace: what the host reads of them.
struct IdController {
  uint16_t vid;
  uint8_t reserved0[2];
  uint8_t sn[20];
  uint8_t mn[40];
  uint8_t reserved1[12];
  uint8_t cmic;
  uint8_t mdts;
  uint16_t cntlid;
  uint32_t ver;
  uint8_t reserved2[8];
  uint32_t oaes;
  uint8_t reserved3[32];
  uint16_t crdt1;
  uint16_t crdt2;
  uint16_t crdt3;
  uint8_t reserved4[124];
  uint8_t acl;
  uint8_t reserved5[61];
  uint16_t kas;
  uint8_t reserved6[20];
  uint8_t anatt;
  uint8_t reserved7[1];
  uint32_t anagrpmax;
  uint32_t nanagrpid;
  uint8_t reserved8[34];
  uint16_t cqt;
  uint8_t reserved9[126];
  uint16_t maxcmd;
  uint32_t nn;
  uint16_t oncs;
  uint8_t reserved10[3];
  uint8_t vwc;
  uint8_t reserved11[14];
  uint32_t mnan;
  uint8_t reserved12[224];
  uint8_t subnqn[256];
  uint8_t reserved13[768];
  uint32_t ioccsz;
  uint8_t reserved14[4];
  uint16_t icdoff;
  uint8_t reserved15[1270];
  uint8_t vendor[1024];
};
static_assert(sizeof(IdController) == 4096);

struct LbaFormat {
  uint16_t ms;
  uint8_t ds;
  uint8_t reserved0[1];
};
static_assert(sizeof(LbaFormat) == 4);

struct IdNamespace {
  uint64_t nsze;
  uint8_t reserved0[16];
  uint8_t nsfeat;
  uint8_t nlbaf;
  uint8_t flbas;
  uint8_t reserved1[6];
  uint8_t dlfeat;
  uint8_t reserved2[2];
  uint16_t nawupf;
  uint8_t reserved3[6];
  uint16_t nabspf;
  uint16_t noiob;
  uint8_t reserved4[16];
  uint16_t npwg;
  uint8_t reserved5[2];
  uint16_t npdg;
  uint8_t reserved6[2];
  uint16_t nows;
  uint8_t reserved7[18];
  uint32_t anagrpid;
  uint8_t reserved8[3];
  uint8_t nsattr;
  uint8_t reserved9[4];
  uint8_t nguid[16];
  uint8_t eui64[8];
  LbaFormat lbafs[64];
  uint8_t vendor[3712];
};
static_assert(sizeof(IdNamespace) == 4096);

// Log of asymmetric access: a header, then groups with their namespaces. state: bits 3:0.
struct AnaHeader {
  uint64_t chgcnt;
  uint16_t ngrps;
  uint8_t reserved0[6];
};
static_assert(sizeof(AnaHeader) == 16);

struct AnaGroup {
  uint32_t grpid;
  uint32_t nnsids;
  uint64_t chgcnt;
  uint8_t state;
  uint8_t reserved0[15];
};
static_assert(sizeof(AnaGroup) == 32);

#pragma pack(pop)

// Opcodes of the NVM command set that the engine knows, and the one of all fabrics commands.
enum Opcode : uint8_t {
  kFlush = 0x00,
  kWrite = 0x01,
  kRead = 0x02,
  kCompare = 0x05,
  kWriteZeroes = 0x08,
  kDsm = 0x09,
  kVerify = 0x0C,
  kCopy = 0x19,
  kFabrics = 0x7F,
};

// Types of fabrics commands.
enum Fctype : uint8_t {
  kPropertySet = 0x00,
  kConnect = 0x01,
  kPropertyGet = 0x04,
  kAuthSend = 0x05,
  kAuthReceive = 0x06,
  kDisconnect = 0x08,
};

// Opcodes of admin commands that the host sends.
enum AdminOpcodes : uint8_t {
  kGetLogPage = 0x02,
  kIdentify = 0x06,
  kAbort = 0x08,
  kSetFeatures = 0x09,
  kAsyncEventRequest = 0x0C,
  kKeepAlive = 0x18,
};

// What the host asks for: Identify structures, log pages, features, properties and their offsets.
constexpr uint8_t kCnsNamespace = 0x00, kCnsController = 0x01;
constexpr uint8_t kCnsNamespaces = 0x02, kCnsDescriptors = 0x03;
constexpr uint8_t kLidChangedNamespaces = 0x04, kLidAna = 0x0C;
constexpr uint8_t kFidQueues = 0x07, kFidEvents = 0x0B;
constexpr uint32_t kPropertyCap = 0x00, kPropertyVs = 0x08;
constexpr uint32_t kPropertyCc = 0x14, kPropertyCsts = 0x1C;
constexpr uint32_t kEventNamespace = 0x00040002, kEventAna = 0x000C0302;
constexpr uint32_t kOaesNamespace = 0x100, kOaesAna = 0x800;
constexpr uint32_t kAllNamespaces = 0xFFFFFFFF;
constexpr uint16_t kDynamicCntlid = 0xFFFF;
constexpr uint8_t kSqFlowControlOff = 0x04;
constexpr uint16_t kOncsCompare = 0x01, kOncsDsm = 0x04, kOncsWriteZeroes = 0x08;
constexpr uint8_t kCmicAna = 0x08;
constexpr uint8_t kNsfeatAtomic = 0x02, kNsfeatOptimal = 0x10;
constexpr uint8_t kNsattrWriteProtected = 0x01;
constexpr size_t kMaxNqn = 223;
enum AnaState : uint8_t {
  kAnaOptimized = 0x01,
  kAnaNonOptimized = 0x02,
  kAnaInaccessible = 0x03,
  kAnaPersistentLoss = 0x04,
  kAnaChange = 0x0F,
};

// Bits of cdw12: of Write, Copy and Write Zeroes; of Write Zeroes.
inline constexpr uint32_t kFua = 1u << 30;
inline constexpr uint32_t kDeallocate = 1u << 25;

// Status of a CQE without the phase bit: SCT << 8 | SC, kDnr where a retry cannot help.
using Status = uint16_t;
constexpr Status kDnr = 0x4000;
constexpr Status kOk = 0x000;
constexpr Status kInvalidOpcode = 0x001 | kDnr;
constexpr Status kInvalidField = 0x002 | kDnr;
constexpr Status kCidConflict = 0x003 | kDnr;
constexpr Status kInternal = 0x006;
constexpr Status kFusedFailed = 0x009;
constexpr Status kFusedMissing = 0x00A | kDnr;
constexpr Status kInvalidNamespace = 0x00B | kDnr;
constexpr Status kSequenceError = 0x00C | kDnr;
constexpr Status kSglLength = 0x00F | kDnr;
constexpr Status kSglType = 0x011 | kDnr;
constexpr Status kSglOffset = 0x016 | kDnr;
constexpr Status kWriteProtected = 0x020 | kDnr;
constexpr Status kTransientTransport = 0x022;
constexpr Status kLbaRange = 0x080 | kDnr;
constexpr Status kCapacity = 0x081 | kDnr;
constexpr Status kCopyLimits = 0x183 | kDnr;
constexpr Status kWriteFault = 0x280;
constexpr Status kReadError = 0x281;
constexpr Status kInternalPath = 0x300;
constexpr Status kCompareFailed = 0x285 | kDnr;
constexpr Status kAborted = 0x007;
constexpr Status kAbortedSq = 0x008;
constexpr Status kInterrupted = 0x021;
constexpr Status kNotReady = 0x082;
constexpr Status kReservationConflict = 0x083 | kDnr;
constexpr Status kInvalidHost = 0x184 | kDnr;
constexpr Status kConnectParameters = 0x182 | kDnr;
constexpr Status kAuthenticationRequired = 0x191 | kDnr;
constexpr Status kAnaPersistentLossStatus = 0x301 | kDnr;
constexpr Status kAnaInaccessibleStatus = 0x302;
constexpr Status kAnaTransitionStatus = 0x303;

// Limits of our target (src/nvme/wire/limits.ts): what Identify and ICResp promise.
constexpr uint32_t kAdminInCapsule = 8192, kIoInCapsule = 16384;
constexpr uint32_t kMaxTransfer = 1048576, kMaxH2cData = 1048576;
constexpr uint64_t kMaxZeroes = 33554432;
constexpr uint32_t kMaxQueueSize = 1024;
constexpr uint32_t kCopyRanges = 128, kDsmRanges = 256;

}  // namespace vioctl::nvme
