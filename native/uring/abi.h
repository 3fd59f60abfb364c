// The io_uring ABI. The structures and the numbers up to 6.1 come from the kernel's own header, which every
// distribution ships; newer numbers come from the tables of src/uring/abi.ts, newer structures stand here
// (include/uapi/ linux/io_uring.h and io_uring/query.h of that kernel). Names are ours, so a newer header never
// collides with them.
#pragma once
#include <linux/io_uring.h>

#include <cstdint>

#include "uring/abi_newer.h"

namespace vioctl::uring::abi {

inline constexpr uint32_t kRegisterUseRegisteredRing = 1U << 31;  // 6.3, or'ed to the opcode of io_uring_register

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
