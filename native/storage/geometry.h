// What a source is made of: the sizes that its hosts should know, and what tells it apart from all others.
#pragma once
#include <sys/stat.h>
#include <sys/statfs.h>

#include <array>
#include <cstdint>
#include <optional>

namespace vioctl::storage {

// Bytes. 0: the source does not say.
struct Geometry {
  uint32_t logical = 512;    // smallest unit of addressing
  uint32_t physical = 4096;  // smallest unit that is written without reading first
  uint32_t minimum_io = 0, optimal_io = 0;
  uint32_t alignment_offset = 0;                  // of the first physical block
  uint32_t direct_memory = 0, direct_offset = 0;  // alignment for O_DIRECT; 0: it is not supported
  bool rotational = false, device = false, readonly = false;
};

// Of an open file or block device.
Geometry GeometryOf(int fd, const struct stat& st);

// What does not change when a file is renamed, written or resized, nor when the machine starts again.
struct FileIdentity {
  bool block = false;  // a block device
  uint64_t device = 0, inode = 0;
  std::optional<std::array<uint8_t, 16>> filesystem;  // its UUID (Linux 6.9)
  uint64_t fsid = 0;                                  // statfs(2)
  std::optional<uint32_t> generation;                 // tells a file from an earlier one with the same inode number
  std::optional<uint64_t> born;                       // ns since 1970, of a file without one
};

// `fs`: of the file system, if it is known.
FileIdentity IdentityOf(int fd, const struct stat& st, const struct statfs* fs);

}  // namespace vioctl::storage
