// NVMe over TCP as it lies on the wire: PDUs (NVMe/TCP transport specification 1.1, section 3.6), submission and
// completion queue entries (base specification 2.0, 3.3.3) and the numbers that the engines need.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

namespace vioctl::nvme {

static_assert(std::endian::native == std::endian::little,
              "NVMe is little-endian, and so are the machines we build for");

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

enum PduFlag : uint8_t { kHdgstFlag = 0x01, kDdgstFlag = 0x02, kLastPdu = 0x04, kSuccess = 0x08 };

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
  uint8_t hpda;  // 0's based dwords: data of C2HData starts at a multiple of (hpda + 1) * 4
  uint8_t dgst;  // bit 0 header, bit 1 data digest
  uint32_t maxr2t;
  uint8_t reserved[112];
};
static_assert(sizeof(IcReq) == 128);

struct IcResp {
  CommonHeader ch;
  uint16_t pfv;
  uint8_t cpda;
  uint8_t dgst;
  uint32_t maxh2cdata;
  uint8_t reserved[112];
};
static_assert(sizeof(IcResp) == 128);

struct TermReq {
  CommonHeader ch;
  uint16_t fes;
  uint32_t fei;
  uint8_t reserved[10];
};
static_assert(sizeof(TermReq) == 24);
constexpr uint32_t kTermReqMax = 152;

// SGL descriptor (base specification 4.1.2.1): id is type in bits 7:4 and sub type in bits 3:0.
struct Sgl {
  uint64_t address;
  uint32_t length;
  uint8_t reserved[3];
  uint8_t id;
};
static_assert(sizeof(Sgl) == 16);
constexpr uint8_t kSglInCapsule = 0x01;      // data block, offset: the address is an offset into the capsule's data
constexpr uint8_t kSglCommandBuffer = 0x5A;  // transport data block, transport specific

struct Sqe {
  uint8_t opcode;
  uint8_t flags;  // bits 1:0 FUSE, 7:6 PSDT
  uint16_t cid;
  uint32_t nsid;  // fabrics commands: FCTYPE in the lowest byte
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

struct Cqe {
  uint64_t result;
  uint16_t sqhd;
  uint16_t sqid;
  uint16_t cid;
  uint16_t status;  // bit 0 phase, 8:1 SC, 11:9 SCT, 14 more, 15 DNR
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
  uint32_t reserved;
};
static_assert(sizeof(Data) == 24);

struct R2t {
  CommonHeader ch;
  uint16_t cccid;
  uint16_t ttag;
  uint32_t r2to;
  uint32_t r2tl;
  uint32_t reserved;
};
static_assert(sizeof(R2t) == 24);

// Dataset Management range (NVM command set 1.0, 3.2.3).
struct DsmRange {
  uint32_t attributes;
  uint32_t nlb;
  uint64_t slba;
};
static_assert(sizeof(DsmRange) == 16);

// Copy source range entry, descriptor format 0 (NVM command set 1.0, 3.2.2).
struct CopyRange {
  uint64_t reserved0;
  uint64_t slba;
  uint16_t nlb;  // 0's based
  uint8_t reserved1[14];
};
static_assert(sizeof(CopyRange) == 32);

#pragma pack(pop)

// Opcodes of the NVM command set, and the one of all fabrics commands.
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

// Types of fabrics commands that the engine looks at.
enum Fctype : uint8_t { kConnect = 0x01, kDisconnect = 0x08 };
inline uint8_t FctypeOf(const Sqe& sqe) { return static_cast<uint8_t>(sqe.nsid); }

// Bits of cdw12: Write, Copy and Write Zeroes; Write Zeroes.
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
constexpr Status kCompareFailed = 0x285 | kDnr;

// The 16 bits of a CQE for a status: bit 0 is the phase, which fabrics queues do not have.
constexpr uint16_t StatusField(Status status) { return static_cast<uint16_t>(status << 1); }

// Whether a command moves data, and which way: bits 1:0 of its opcode, or of a fabrics command's type.
enum Direction : uint8_t { kNoData = 0, kToController = 1, kToHost = 2, kBoth = 3 };
inline Direction DirectionOf(const Sqe& sqe) {
  return static_cast<Direction>((sqe.opcode == kFabrics ? sqe.nsid : sqe.opcode) & 3);
}

}  // namespace vioctl::nvme
