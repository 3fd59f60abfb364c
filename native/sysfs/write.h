// Writes to attributes that may block for ever: a driver's unbind waits in the kernel until the last user of the device
// has gone, and no signal ends that wait.
#pragma once
#include <string>

#include "common/owned.h"

namespace vioctl::sysfs {

// Writes `data` with one write(2) in a process of its own, which shares no descriptor with this one, is in a session of
// its own and is reaped by init. The caller reads two native 32-bit numbers from the returned pipe: the process id, at
// once, and, when write(2) has returned, 0 or its errno. Throws SysError when the process cannot be made.
Fd StartWrite(const std::string& path, const std::string& data);

}  // namespace vioctl::sysfs
