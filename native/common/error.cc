#include "common/error.h"

#include "common/errnos.h"

namespace vioctl {
namespace {

// An own table: strerrorname_np() would raise the glibc that the prebuilt addon needs to 2.32.
const Errno* Find(int err) {
  for (const Errno& one : kErrnos)
    if (one.number == err) return &one;
  return nullptr;
}

}  // namespace

std::string ErrnoName(int err) {
  const Errno* known = Find(err);
  return known ? known->name : "E" + std::to_string(err);
}

SysError::SysError(int err, const char* call, std::string detail) : err_(err), call_(call) {
  const Errno* known = Find(err);
  text_ = ErrnoName(err) + ": " + (known ? known->text : "Unknown error") + ", " + call;
  if (!detail.empty()) text_ += " '" + detail + "'";
}

}  // namespace vioctl
