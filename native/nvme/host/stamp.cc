#include "nvme/host/stamp.h"

#include <sys/random.h>

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

}  // namespace vioctl::nvme::host
