// What tells the targets of this process apart from all others: they carry it in the vendor specific part of Identify
// Controller, and the host looks for it there. So a target never becomes its own source, whatever address leads to it.
// Identify Namespace has the stamps of all targets that requests for the namespace pass, so that it does not become one
// by way of another process either. Targets of other programs, and what is served by other protocols, end this chain.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "nvme/wire.h"

namespace vioctl::nvme::host {

constexpr size_t kStampSize = 24;  // a name and random bytes
using Stamp = std::array<uint8_t, kStampSize>;

// The same for the life of the process. Throws SysError: getrandom.
const Stamp& ProcessStamp();

// Whether a controller is one of this process.
bool IsOwn(const IdController& controller);

// Targets that pass requests for a namespace on, the one that the host speaks to first.
struct Hops {
  static constexpr size_t kMost = 16;  // more are a loop, as far as anybody can tell
  std::vector<Stamp> stamps;
  // Whether one of them is a target of this process, or there are too many.
  bool loop() const;
};
Hops HopsOf(const IdNamespace& data);
// What Identify Namespace of a target of this process says: itself, and the targets that its source leads to.
std::vector<uint8_t> PassedOn(const Hops& hops);

}  // namespace vioctl::nvme::host
