// The io_uring ABI. The structures and the numbers up to 6.1 come from the kernel's own header, which every
// distribution ships; all that is newer stands here, beside the kernel version that brought it (include/uapi/linux/
// io_uring.h and io_uring/query.h of that kernel). Names are ours, so a newer header never collides with this file.
#pragma once
#include <linux/io_uring.h>

#include <cstdint>

namespace vioctl::uring::abi {

// io_uring_setup flags
inline constexpr uint32_t kSetupNoMmap = 1U << 14;            // 6.5
inline constexpr uint32_t kSetupRegisteredFdOnly = 1U << 15;  // 6.5
inline constexpr uint32_t kSetupNoSqArray = 1U << 16;         // 6.6
inline constexpr uint32_t kSetupHybridIopoll = 1U << 17;      // 6.13
inline constexpr uint32_t kSetupCqeMixed = 1U << 18;          // 6.18
inline constexpr uint32_t kSetupSqeMixed = 1U << 19;          // 6.19
inline constexpr uint32_t kSetupSqRewind = 1U << 20;          // 7.0

// io_uring_params.features
inline constexpr uint32_t kFeatRegRegRing = 1U << 13;      // 6.3
inline constexpr uint32_t kFeatRecvSendBundle = 1U << 14;  // 6.10
inline constexpr uint32_t kFeatMinTimeout = 1U << 15;      // 6.12
inline constexpr uint32_t kFeatRwAttr = 1U << 16;          // 6.14
inline constexpr uint32_t kFeatNoIowait = 1U << 17;        // 6.15

// Request opcodes
inline constexpr uint8_t kOpReadMultishot = 49;   // 6.7
inline constexpr uint8_t kOpWaitid = 50;          // 6.7
inline constexpr uint8_t kOpFutexWait = 51;       // 6.7
inline constexpr uint8_t kOpFutexWake = 52;       // 6.7
inline constexpr uint8_t kOpFutexWaitv = 53;      // 6.7
inline constexpr uint8_t kOpFixedFdInstall = 54;  // 6.8
inline constexpr uint8_t kOpFtruncate = 55;       // 6.9
inline constexpr uint8_t kOpBind = 56;            // 6.11
inline constexpr uint8_t kOpListen = 57;          // 6.11
inline constexpr uint8_t kOpRecvZc = 58;          // 6.15
inline constexpr uint8_t kOpEpollWait = 59;       // 6.15
inline constexpr uint8_t kOpReadvFixed = 60;      // 6.15
inline constexpr uint8_t kOpWritevFixed = 61;     // 6.15
inline constexpr uint8_t kOpPipe = 62;            // 6.16
inline constexpr uint8_t kOpNop128 = 63;          // 6.19
inline constexpr uint8_t kOpUringCmd128 = 64;     // 6.19

// io_uring_register opcodes
inline constexpr uint32_t kRegisterPbufStatus = 26;               // 6.8
inline constexpr uint32_t kRegisterNapi = 27;                     // 6.9
inline constexpr uint32_t kUnregisterNapi = 28;                   // 6.9
inline constexpr uint32_t kRegisterClock = 29;                    // 6.12
inline constexpr uint32_t kRegisterCloneBuffers = 30;             // 6.12
inline constexpr uint32_t kRegisterSendMsgRing = 31;              // 6.13
inline constexpr uint32_t kRegisterZcrxIfq = 32;                  // 6.15
inline constexpr uint32_t kRegisterResizeRings = 33;              // 6.13
inline constexpr uint32_t kRegisterMemRegion = 34;                // 6.13
inline constexpr uint32_t kRegisterQuery = 35;                    // 6.18
inline constexpr uint32_t kRegisterZcrxCtrl = 36;                 // 6.19
inline constexpr uint32_t kRegisterBpfFilter = 37;                // 7.0
inline constexpr uint32_t kRegisterUseRegisteredRing = 1U << 31;  // 6.3, or'ed to the opcode

// IORING_REGISTER_QUERY (6.18): works on any descriptor, also -1; nr_args is 0
struct QueryHeader {
  uint64_t next_entry;
  uint64_t query_data;
  uint32_t query_op;
  uint32_t size;
  int32_t result;
  uint32_t resv[3];
};
inline constexpr uint32_t kQueryOpcodes = 0;
struct QueryOpcodes {
  uint32_t nr_request_opcodes;
  uint32_t nr_register_opcodes;
  uint64_t feature_flags;
  uint64_t ring_setup_flags;
  uint64_t enter_flags;
  uint64_t sqe_flags;
  uint32_t nr_query_opcodes;
  uint32_t pad;
};

static_assert(sizeof(io_uring_sqe) == 64 && sizeof(io_uring_cqe) == 16 && sizeof(io_uring_params) == 120);
static_assert(sizeof(QueryHeader) == 40 && sizeof(QueryOpcodes) == 48);

}  // namespace vioctl::uring::abi
