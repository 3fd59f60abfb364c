/* Preloaded: every pwritev(2) and preadv(2) of the program takes SLOW_DISK_MS milliseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static void wait_for_disk(void) {
  const char *ms = getenv("SLOW_DISK_MS");
  usleep((ms ? (unsigned)atoi(ms) : 0) * 1000);
}

#define SLOW(name)                                                              \
  ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) {    \
    ssize_t (*real)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, #name); \
    wait_for_disk();                                                            \
    return real(fd, parts, count, offset);                                      \
  }
SLOW(pwritev)
SLOW(pwritev64)
SLOW(preadv)
SLOW(preadv64)
