#include "sysfs/descriptors.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/error.h"
#include "os/directory.h"
#include "os/fd.h"

namespace vioctl::sysfs {
namespace {

// /dev/null, /dev/zero and their like (Documentation/admin-guide/devices.txt): most open nodes of a host, and no
// devices.
constexpr uint32_t kMemoryDevices = 1;

// A name of digits as a number, -1 for any other name.
int NumberOf(const char* name) {
  if (*name < '0' || *name > '9') return -1;
  char* end;
  const long value = strtol(name, &end, 10);
  return *end || value > INT_MAX ? -1 : static_cast<int>(value);
}

// Only links into a /dev are followed: a stat of anything else could wait for a dead network file system.
void ReadNode(int dir, const char* name, Descriptor& descriptor) {
  struct stat node;
  if (descriptor.path.find("/dev/") == std::string::npos || ::fstatat(dir, name, &node, 0) != 0) return;
  if (!S_ISBLK(node.st_mode) && !S_ISCHR(node.st_mode)) return;
  descriptor.kind = S_ISBLK(node.st_mode) ? 'b' : 'c';
  descriptor.major = major(node.st_rdev);
  descriptor.minor = minor(node.st_rdev);
}

void ScanProcess(int proc, pid_t pid, Descriptors& out) {
  const std::string path = std::to_string(pid) + "/fd";
  Fd fd = os::TryOpenAt(proc, path.c_str(), O_RDONLY | O_DIRECTORY);
  if (fd.get() < 0) {
    if (errno == EACCES) out.hidden++;
    return;
  }
  const int at = fd.get();
  const os::Directory dir = os::ReadDirectory(std::move(fd));
  if (!dir) return;  // the process has ended meanwhile
  char target[PATH_MAX];
  while (const dirent* entry = ::readdir(dir.get())) {
    const int number = NumberOf(entry->d_name);
    if (number < 0) continue;
    const ssize_t size = ::readlinkat(at, entry->d_name, target, sizeof target - 1);
    if (size <= 0) continue;  // closed meanwhile
    target[size] = 0;
    if (!strstr(target, "/dev/") && !strstr(target, "vfio")) continue;
    Descriptor descriptor{pid, number, std::string(target, static_cast<size_t>(size)), 0, 0, 0};
    ReadNode(at, entry->d_name, descriptor);
    if (descriptor.kind == 'c' && descriptor.major == kMemoryDevices) continue;
    out.found.push_back(std::move(descriptor));
  }
}

}  // namespace

Descriptors ScanDescriptors() {
  const Fd proc = os::Open("/proc", O_RDONLY | O_DIRECTORY);
  const os::Directory dir(::opendir("/proc"));
  if (!dir) throw SysError(errno, "opendir", "/proc");
  Descriptors out{};
  while (const dirent* entry = ::readdir(dir.get())) {
    const int pid = NumberOf(entry->d_name);
    if (pid > 0) ScanProcess(proc.get(), pid, out);
  }
  return out;
}

}  // namespace vioctl::sysfs
