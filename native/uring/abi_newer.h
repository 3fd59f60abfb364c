// Made by npm run gen from src/uring/abi.ts. Change that.
// clang-format off
#pragma once
#include <cstdint>

namespace vioctl::uring::abi {

// io_uring_setup flags that are newer than 6.1
inline constexpr uint32_t kSetupNoMmap = 0x4000;  // 6.5
inline constexpr uint32_t kSetupRegisteredFdOnly = 0x8000;  // 6.5
inline constexpr uint32_t kSetupNoSqarray = 0x10000;  // 6.6
inline constexpr uint32_t kSetupHybridIopoll = 0x20000;  // 6.13
inline constexpr uint32_t kSetupCqeMixed = 0x40000;  // 6.18
inline constexpr uint32_t kSetupSqeMixed = 0x80000;  // 6.19
inline constexpr uint32_t kSetupSqRewind = 0x100000;  // 7.0

// io_uring_params.features
inline constexpr uint32_t kFeatRegRegRing = 0x2000;  // 6.3
inline constexpr uint32_t kFeatRecvsendBundle = 0x4000;  // 6.10
inline constexpr uint32_t kFeatMinTimeout = 0x8000;  // 6.12
inline constexpr uint32_t kFeatRwAttr = 0x10000;  // 6.14
inline constexpr uint32_t kFeatNoIowait = 0x20000;  // 6.15

// Request opcodes
inline constexpr uint8_t kOpReadMultishot = 0x31;  // 6.7
inline constexpr uint8_t kOpWaitid = 0x32;  // 6.7
inline constexpr uint8_t kOpFutexWait = 0x33;  // 6.7
inline constexpr uint8_t kOpFutexWake = 0x34;  // 6.7
inline constexpr uint8_t kOpFutexWaitv = 0x35;  // 6.7
inline constexpr uint8_t kOpFixedFdInstall = 0x36;  // 6.8
inline constexpr uint8_t kOpFtruncate = 0x37;  // 6.9
inline constexpr uint8_t kOpBind = 0x38;  // 6.11
inline constexpr uint8_t kOpListen = 0x39;  // 6.11
inline constexpr uint8_t kOpRecvZc = 0x3a;  // 6.15
inline constexpr uint8_t kOpEpollWait = 0x3b;  // 6.15
inline constexpr uint8_t kOpReadvFixed = 0x3c;  // 6.15
inline constexpr uint8_t kOpWritevFixed = 0x3d;  // 6.15
inline constexpr uint8_t kOpPipe = 0x3e;  // 6.16
inline constexpr uint8_t kOpNop128 = 0x3f;  // 6.19
inline constexpr uint8_t kOpUringCmd128 = 0x40;  // 6.19

// io_uring_register opcodes
inline constexpr uint32_t kRegisterPbufStatus = 0x1a;  // 6.8
inline constexpr uint32_t kRegisterNapi = 0x1b;  // 6.9
inline constexpr uint32_t kUnregisterNapi = 0x1c;  // 6.9
inline constexpr uint32_t kRegisterClock = 0x1d;  // 6.12
inline constexpr uint32_t kRegisterCloneBuffers = 0x1e;  // 6.12
inline constexpr uint32_t kRegisterSendMsgRing = 0x1f;  // 6.13
inline constexpr uint32_t kRegisterZcrxIfq = 0x20;  // 6.15
inline constexpr uint32_t kRegisterResizeRings = 0x21;  // 6.13
inline constexpr uint32_t kRegisterMemRegion = 0x22;  // 6.13
inline constexpr uint32_t kRegisterQuery = 0x23;  // 6.18
inline constexpr uint32_t kRegisterZcrxCtrl = 0x24;  // 6.19
inline constexpr uint32_t kRegisterBpfFilter = 0x25;  // 7.0

}  // namespace vioctl::uring::abi
