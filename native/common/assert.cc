#include "common/assert.h"

#include <cstdio>
#include <cstdlib>

namespace vioctl {

void AssertFailed(const char* condition, const char* file, int line) {
  fprintf(stderr, "vioctl: %s:%d: the invariant does not hold: %s\n", file, line, condition);
  abort();
}

}  // namespace vioctl
