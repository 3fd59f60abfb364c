// Bulk data between a namespace and a file, device, pipe or socket, with several commands under way. The thread that
// calls does the input or output, the host's own thread the commands.
#pragma once
#include <atomic>
#include <cstdint>

#include "nvme/host/host.h"

namespace vioctl::nvme::host {

struct CopyOptions {
  int fd = -1;
  uint64_t offset = 0, length = 0;  // bytes of the namespace; need not be whole blocks
  uint32_t chunk = 1 << 20;         // bytes of one command, cut to what the controller takes
  uint32_t depth = 32;              // commands under way
  bool fua = false;                 // writes: past the volatile cache
  bool deallocate = false;          // writes: blocks of zeroes give their space back
};

// How far it is; others may look meanwhile.
struct CopyState {
  std::atomic<uint64_t> done{0};  // bytes
  std::atomic<bool> stop{false};  // set it to end early, with ECANCELED
};

struct CopyResult {
  uint64_t bytes = 0;          // read into the output, or written and acknowledged, from the start without a gap
  uint64_t durable = 0;        // writes: of them, those that survive a power failure of the target
  uint64_t merged_blocks = 0;  // that were read first because the input did not fill them
  bool overlong = false;       // there is more input than the range has room for
  int err = 0;
  // What failed. kCut: the input became shorter while it was sent.
  enum class Where : uint8_t { kNone, kNamespace, kInput, kCut, kOutput } where = Where::kNone;
};

// The range of a namespace into `fd`: to its end where it is no file, else to its position. Blocks of zeroes become
// holes behind the end of a regular file.
CopyResult ReadInto(Host& host, const CopyOptions& options, CopyState& state);

// What `fd` gives, to its end or that of the range, into a namespace; flushes. Holes and blocks of zeroes are written
// as zeroes without their data if the controller can do so.
CopyResult WriteFrom(Host& host, const CopyOptions& options, CopyState& state);

}  // namespace vioctl::nvme::host
