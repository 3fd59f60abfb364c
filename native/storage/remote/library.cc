#include "storage/remote/library.h"

#include <dlfcn.h>

#include <cerrno>

#include "common/error.h"

namespace vioctl::storage {

Library::Library(const char* name) : handle_(::dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
  if (!handle_) throw SysError(ELIBACC, "dlopen", name);
}

void* Library::Find(const char* symbol) const {
  void* const found = ::dlsym(handle_, symbol);
  if (!found) throw SysError(ELIBBAD, "dlsym", symbol);
  return found;
}

}  // namespace vioctl::storage
