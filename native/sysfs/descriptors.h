// The descriptors of all processes that may matter to a device (/proc/PID/fd).
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vioctl::sysfs {

// A descriptor of a device node other than /dev/null and its like, or one whose name has "vfio" in it.
struct Descriptor {
  pid_t pid;
  int fd;
  std::string path;  // target of the link
  char kind;         // 'b' or 'c' for a node that is there, else 0
  uint32_t major, minor;
};

struct Descriptors {
  std::vector<Descriptor> found;
  uint32_t hidden;  // processes whose descriptors may not be read
};

// Looks at every descriptor of every process once. A process that ends meanwhile is left out. Throws SysError if /proc
// cannot be read at all.
Descriptors ScanDescriptors();

}  // namespace vioctl::sysfs
