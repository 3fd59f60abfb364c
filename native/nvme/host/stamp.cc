#include "nvme/host/stamp.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "common/error.h"

namespace vioctl::nvme::host {
namespace {

constexpr char kName[] = "vioctl/1";
constexpr size_t kNameSize = sizeof kName - 1;

Stamp Make() {
  Stamp stamp{};
  memcpy(stamp.data(), kName, kNameSize);
  if (::getrandom(stamp.data() + kNameSize, kStampSize - kNameSize, 0) != static_cast<ssize_t>(kStampSize - kNameSize))
    throw SysError(errno, "getrandom");
  return stamp;
}

}  // namespace

const Stamp& ProcessStamp() {
  static const Stamp stamp = Make();
  return stamp;
}

bool IsOwn(const IdController& controller) { return memcmp(controller.vendor, ProcessStamp().data(), kStampSize) == 0; }

bool Hops::loop() const {
  return stamps.size() >= kMost || std::find(stamps.begin(), stamps.end(), ProcessStamp()) != stamps.end();
}

Hops HopsOf(const IdNamespace& data) {
  static_assert(Hops::kMost * kStampSize <= sizeof data.vendor);
  Hops hops;
  for (size_t i = 0; i < Hops::kMost; i++) {
    Stamp stamp;
    memcpy(stamp.data(), data.vendor + i * kStampSize, kStampSize);
    if (memcmp(stamp.data(), kName, kNameSize) != 0) break;
    hops.stamps.push_back(stamp);
  }
  return hops;
}

std::vector<uint8_t> PassedOn(const Hops& hops) {
  std::vector<uint8_t> bytes(ProcessStamp().begin(), ProcessStamp().end());
  for (const Stamp& stamp : hops.stamps) {
    if (bytes.size() >= Hops::kMost * kStampSize) break;
    bytes.insert(bytes.end(), stamp.begin(), stamp.end());
  }
  return bytes;
}

}  // namespace vioctl::nvme::host
