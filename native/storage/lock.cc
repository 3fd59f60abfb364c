#include "storage/lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <random>

namespace vioctl::storage {
namespace {

// QEMU's BLK_PERM_* as bits; write-unchanged (4) is always shared.
enum : unsigned { kRead = 1, kWrite = 2, kResize = 8 };
constexpr unsigned kBits = 4;
constexpr off_t kUses = 100, kRefuses = 200;
// Two that start at once see each other and both step back: each tries again after a pause of its own.
constexpr int kTries = 4;
constexpr unsigned kPauseUs = 20'000;

struct flock BytesAt(off_t at, off_t count, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = count;
  return lock;
}

int Set(int fd, off_t at, off_t count, short type) {
  struct flock lock = BytesAt(at, count, type);
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

// Whether somebody else has a lock of any kind on one of the bytes.
bool Taken(int fd, off_t at, off_t count = 1) {
  struct flock lock = BytesAt(at, count, F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int TryLock(int fd, unsigned uses, unsigned refuses, bool look) {
  for (const auto& [set, base] : {std::pair{uses, kUses}, std::pair{refuses, kRefuses}}) {
    for (int first = 0, count; set >> first != 0; first += count) {  // bits that stand together at a time
      first += std::countr_zero(set >> first);
      count = std::countr_one(set >> first);
      const int err = Set(fd, base + first, count, F_RDLCK);
      if (err == EAGAIN || err == EACCES) return EBUSY;  // somebody has it exclusively: no program that we know
      if (err != 0) return err;
    }
  }
  // One question, as a rule: nobody has any of them.
  if (!look || !Taken(fd, kUses, kRefuses + kBits - kUses)) return 0;
  for (unsigned bit = 0; bit < kBits; bit++) {
    if ((uses >> bit & 1) && Taken(fd, kRefuses + bit)) return EBUSY;
    if ((refuses >> bit & 1) && Taken(fd, kUses + bit)) return EBUSY;
  }
  return 0;
}

}  // namespace

void UnlockImage(int fd) {
  for (const off_t base : {kUses, kRefuses}) Set(fd, base, kBits, F_UNLCK);
}

int LockImage(int fd, const LockMode& mode) {
  const unsigned uses = mode.write ? kRead | kWrite : kRead;
  const unsigned refuses = mode.shared ? kResize : kWrite | kResize;
  thread_local std::minstd_rand random(static_cast<unsigned>(::getpid()) ^ std::random_device{}());
  for (int tries = 1;; tries++) {
    const int err = TryLock(fd, uses, refuses, !mode.force);
    if (err == 0 || mode.force) return 0;
    UnlockImage(fd);
    if (err == EINVAL || err == ENOSYS || err == EOPNOTSUPP) return 0;
    if (err != EBUSY || tries == kTries) return err;
    ::usleep(random() % kPauseUs);
  }
}

}  // namespace vioctl::storage
