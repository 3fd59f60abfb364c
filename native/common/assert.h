// Invariants, written where they hold: at the borders of allocators and state machines. They are checked in releases
// too; an invariant that would cost a hot path something is one of the tests instead.
#pragma once

namespace vioctl {

// Says which invariant broke, and where, and ends the process with SIGABRT: its state cannot be trusted any more.
[[noreturn]] void AssertFailed(const char* condition, const char* file, int line);

}  // namespace vioctl

#define VIOCTL_ASSERT(condition)                              \
  (__builtin_expect(static_cast<bool>(condition), 1) ? void() \
                                                     : ::vioctl::AssertFailed(#condition, __FILE_NAME__, __LINE__))
