// Threads of our own.
#pragma once
#include <functional>
#include <thread>

namespace vioctl::os {

// A thread that leaves signals to the main thread, except those that its own accesses raise. Throws SysError.
std::thread StartThread(std::function<void()> body);

}  // namespace vioctl::os
