// What tells the targets of this process apart from all others: they carry it in the vendor specific part of Identify
// Controller, and the host looks for it there. So a target never becomes its own source, whatever address leads to it.
#pragma once
#include <array>
#include <cstdint>

#include "nvme/wire.h"

namespace vioctl::nvme::host {

constexpr size_t kStampSize = 24;  // a name and random bytes
using Stamp = std::array<uint8_t, kStampSize>;

// The same for the life of the process. Throws SysError: getrandom.
const Stamp& ProcessStamp();

// Whether a controller is one of this process.
bool IsOwn(const IdController& controller);

}  // namespace vioctl::nvme::host
