// What the numbers of wire.h say about a command.
#pragma once
#include "nvme/wire.h"

namespace vioctl::nvme {

// The type of a fabrics command, which has no NSID.
inline uint8_t FctypeOf(const Sqe& sqe) { return static_cast<uint8_t>(sqe.nsid); }
inline bool IsProperty(const Sqe& sqe) {
  return sqe.opcode == kFabrics && (FctypeOf(sqe) == kPropertyGet || FctypeOf(sqe) == kPropertySet);
}

// The 16 bits of a CQE for a status: bit 0 is the phase, which fabrics queues do not have.
constexpr uint16_t StatusField(Status status) { return static_cast<uint16_t>(status << 1); }

// Whether a command moves data, and which way: bits 1:0 of its opcode, or of a fabrics command's type.
enum Direction : uint8_t { kNoData = 0, kToController = 1, kToHost = 2, kBoth = 3 };
inline Direction DirectionOf(const Sqe& sqe) {
  return static_cast<Direction>((sqe.opcode == kFabrics ? FctypeOf(sqe) : sqe.opcode) & 3);
}

}  // namespace vioctl::nvme
