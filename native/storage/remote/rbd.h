// Images of Ceph, through librbd.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "storage/store.h"

namespace vioctl::storage {

struct RbdOptions {
  std::string pool, space, image, snapshot;  // space: a namespace of the pool; it and the snapshot may be empty
  std::string conf, id, keyring;             // empty: where Ceph looks itself, client.admin
  bool readonly = false;
  bool shared = false;  // with other writers: the lock of the image passes between them
  bool force = false;   // although another client has the lock for itself
  bool claim = true;    // take the lock at once
  ZeroMode zero = ZeroMode::kHoles;
  uint32_t timeout_ms = 30'000;  // whole seconds: Ceph rounds
};

// Connects to the cluster and opens the image. Throws SysError: ELIBACC, ELIBBAD of the libraries; ENOENT of
// "rados_..." or "rbd_open" for what is not there; EBUSY of "rbd_lock_acquire" if another client has the image;
// ETIMEDOUT.
std::shared_ptr<Store> OpenRbd(const RbdOptions& options);

}  // namespace vioctl::storage
