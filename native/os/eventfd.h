// Eventfds: counters that wake a thread, an event loop, or a peer.
#pragma once
#include <cstdint>

#include "os/fd.h"

namespace vioctl::os {

// A new eventfd at zero, close-on-exec; reads of a blocking one wait. Throws SysError.
Fd NewEventfd(bool nonblocking = true);

// Adds to a non-blocking eventfd's counter; one that is full is a signal as well. Throws SysError.
void SignalEventfd(int fd, uint64_t count = 1);

// Adds one to a peer's eventfd, which blocks unless `nonblocking` is known: a full one is left alone. False if `fd`
// takes nothing.
bool SignalPeer(int fd, bool nonblocking = false) noexcept;

// Reads an eventfd's counter and clears it; 0 if it was not signalled. Throws SysError.
uint64_t TakeEventfd(int fd);

// The same for a peer's eventfd, which may be blocking, or no eventfd at all.
void ClearPeer(int fd) noexcept;

}  // namespace vioctl::os
