// What may be repeated, and how often: for requests (requests.cc) and for what a lost cache had (replay.cc).
#pragma once
#include <cstdint>

#include "nvme/command.h"
#include "nvme/wire.h"

namespace vioctl::nvme::host {

constexpr uint32_t kMaxLosses = 64;      // of connections while one command was outstanding
constexpr uint32_t kTimedOutTries = 16;  // of them, what one is worth that took it down by its silence
constexpr uint64_t kRetryMs = 100;       // where the controller does not say

// Zeroes to write, at most 1 MiB.
uint8_t* Zeroes(uint32_t size);
// Whether repeating a command may help although the connection is good.
bool Repeats(Status status);
// Status code type 3: the path, not the command.
inline bool OfPath(Status status) { return (status & 0x700) == 0x300; }

}  // namespace vioctl::nvme::host
