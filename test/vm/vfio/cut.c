// Preloaded into the program: sends itself CUT_SIGNAL when it is about to make its CUT_AT-th rename of a journal.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int rename(const char* from, const char* to) {
  static int count;
  int (*real)(const char*, const char*) = (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename");
  const char* at = getenv("CUT_AT");
  if (at && strstr(to, "/run/vioctl/") && ++count == atoi(at)) kill(getpid(), atoi(getenv("CUT_SIGNAL")));
  return real(from, to);
}
