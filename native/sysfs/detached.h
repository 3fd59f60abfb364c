// Attributes of sysfs that may block for ever: a driver's unbind waits in the kernel until the last user of the device
// has gone, and keeps the device locked, so that even reading some attributes of it waits; no signal ends that. Each
// access is made by a process of its own, which the caller can leave behind.
#pragma once
#include <string>
#include <vector>

#include "os/fd.h"

namespace vioctl::sysfs {

// Writes `data` with one write(2) in a process of its own, which shares no descriptor with this one, is in a session of
// its own and is reaped by init. The caller reads two native 32-bit numbers from the returned pipe: the process id, at
// once, and, when write(2) has returned, 0 or its errno. Throws SysError when the process cannot be made.
Fd StartWrite(const std::string& path, const std::string& data);

// One attribute as ReadAll found it.
struct Attribute {
  enum class State { kRead, kFailed, kStuck } state = State::kFailed;
  std::string text;  // at most 4000 bytes
};

// Reads small files, each with one read(2), in one process of its own; one that takes longer than `timeout`
// milliseconds is given up (kStuck), and another process goes on behind it. Throws SysError when no process can be
// made.
std::vector<Attribute> ReadAll(const std::vector<std::string>& paths, int timeout);

}  // namespace vioctl::sysfs
