// Exports of NBD servers, through libnbd.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "storage/store.h"

namespace vioctl::storage {

struct NbdOptions {
  std::string uri;
  // What it is called wherever it is opened: the URI, or what stands behind a socket of our own.
  std::string name;
  bool readonly = false;
  // Other writers may change it: what a dead server may have lost cannot be written again.
  bool shared = false;
  ZeroMode zero = ZeroMode::kHoles;
  uint32_t timeout_ms = 30'000;
};

// Connects, and waits no longer than the time-out. Throws SysError: ELIBACC, ELIBBAD of the library; ECONNREFUSED and
// others of the connection; ETIMEDOUT; EPROTO if the server speaks something else; EACCES for an export that is
// read-only and was to be written; ENOENT if the server has no such export.
std::shared_ptr<Store> OpenNbd(const NbdOptions& options);

}  // namespace vioctl::storage
