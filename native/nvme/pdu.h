// The one check of the eight bytes that all PDUs begin with, for the target and the host. It comes before any byte
// behind them is awaited, and follows the table of types (wire.h).
#pragma once
#include "nvme/wire.h"

namespace vioctl::nvme {

// Data may begin at this byte of a PDU at most: PDO has eight bits.
constexpr uint32_t kMaxPdo = 255;

// What both sides have agreed on, and what a peer may send.
struct PduTerms {
  bool to_controller;  // what is checked goes there
  bool header_digest = false, data_digest = false;
  uint32_t max_capsule_data = UINT32_MAX;  // bytes in a command capsule
  uint32_t max_data = UINT32_MAX;          // bytes in a data PDU
};

// The first wrong field, in the order of the fields that decide how others are read: fatal error status and field
// offset for a TermReq (NVMe/TCP transport specification, 3.6.2.3). kNone: the header is right.
struct PduFault {
  static constexpr uint16_t kNone = 0;
  uint16_t fes = kNone;
  uint32_t fei = 0;
  explicit operator bool() const { return fes != kNone; }
};

// Sets *need to the bytes of the whole PDU; of one that always has data, to those before its data. ICReq and ICResp are
// right whenever they come: the caller knows when they may.
PduFault CheckHeader(const CommonHeader& ch, const PduTerms& terms, uint32_t* need);

}  // namespace vioctl::nvme
