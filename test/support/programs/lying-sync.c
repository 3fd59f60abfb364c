/*
 * Preloaded: a program that says that its data is durable although it is not. With LYING_SYNC=never it does not sync at
 * all; with LYING_SYNC=forget it does, and says nothing of an error.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int lie(long number, int fd) {
  const char *how = getenv("LYING_SYNC");
  if (how && strcmp(how, "forget") == 0) syscall(number, fd);
  return 0;
}

int fdatasync(int fd) { return lie(SYS_fdatasync, fd); }
int fsync(int fd) { return lie(SYS_fsync, fd); }
