/*
 * Preloaded: no look-up finds the function that WITHOUT_FUNCTION names, as in a Node that was built without it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

void *dlsym(void *restrict handle, const char *restrict name) {
  static void *(*real)(void *, const char *);
  static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5"};
  for (size_t i = 0; !real && i < sizeof versions / sizeof *versions; i++)
    *(void **)&real = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
  const char *without = getenv("WITHOUT_FUNCTION");
  if (!real || (without && strcmp(without, name) == 0)) return NULL;
  return real(handle, name);
}
