// Locks on served images that QEMU's own meet: open file description locks on single bytes (QEMU's block/file-posix.c,
// "Image locking"). Byte 100 + N is locked by whoever uses permission N, byte 200 + N by whoever lets nobody else use
// it. All locks are shared ones; a conflict is found by asking for them, so that readers need no write access.
#pragma once

namespace vioctl::storage {

struct LockMode {
  bool write = false;   // else reads alone
  bool shared = false;  // other writers that say the same are welcome
  bool force = false;   // lock, so that others see us, but do not look at theirs
};

// Locks an open image for as long as its open file description lives. Returns 0; EBUSY if somebody else uses it in a
// way that excludes this one; another errno if the file system fails to lock. A file system without locks is no error.
int LockImage(int fd, const LockMode& mode);
// Gives all of them up, whatever else refers to the description.
void UnlockImage(int fd);

}  // namespace vioctl::storage
