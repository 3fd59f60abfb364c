// The clock for time-outs and durations.
#pragma once
#include <time.h>

#include <cstdint>

namespace vioctl::os {

constexpr uint64_t kMs = 1'000'000, kSecond = 1000 * kMs;  // ns

// Nanoseconds of the monotonic clock.
inline uint64_t NowNs() {
  timespec ts;
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * kSecond + static_cast<uint64_t>(ts.tv_nsec);
}

// Milliseconds of the monotonic clock.
inline uint64_t NowMs() { return NowNs() / kMs; }

// The same as of the last tick of the kernel, a few ms ago at most, for a third of the time.
inline uint64_t RecentMs() {
  timespec ts;
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
  return static_cast<uint64_t>(ts.tv_sec) * 1000 + static_cast<uint64_t>(ts.tv_nsec) / kMs;
}

}  // namespace vioctl::os
