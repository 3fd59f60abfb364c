/* LD_PRELOAD: dlopen(3) does not find libraries whose name begins with $WITHOUT_LIBRARY. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

void *dlopen(const char *name, int flags) {
  void *(*real)(const char *, int) = dlsym(RTLD_NEXT, "dlopen");
  const char *hidden = getenv("WITHOUT_LIBRARY");
  if (name && hidden && strncmp(name, hidden, strlen(hidden)) == 0) return real("/nowhere/library.so", flags);
  return real(name, flags);
}
