// Streams of directory entries.
#pragma once
#include <dirent.h>

#include <memory>

#include "os/fd.h"

namespace vioctl::os {

struct CloseDirectory {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

// A stream of an open directory, which closes the descriptor; its number stays good for as long as the stream. Null,
// and the descriptor closed, if that fails (errno).
inline Directory ReadDirectory(Fd fd) {
  Directory dir(::fdopendir(fd.get()));
  if (dir) fd.Release();
  return dir;
}

}  // namespace vioctl::os
