// The clock for time-outs and durations.
#pragma once
#include <time.h>

#include <cstdint>

namespace vioctl::os {

// Nanoseconds of the monotonic clock.
inline uint64_t NowNs() {
  timespec ts;
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(ts.tv_nsec);
}

// Milliseconds of the monotonic clock.
inline uint64_t NowMs() { return NowNs() / 1'000'000; }

}  // namespace vioctl::os
