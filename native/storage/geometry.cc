#include "storage/geometry.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

namespace vioctl::storage {
namespace {

// struct statx of Linux 6.1 (include/uapi/linux/stat.h): older headers end before the fields for direct I/O.
struct Statx {
  uint32_t mask, blksize;
  uint8_t before[0x98 - 8];
  uint32_t dio_mem_align, dio_offset_align;
  uint8_t rest[0x100 - 0xa0];
};
static_assert(sizeof(Statx) == 0x100 && offsetof(Statx, dio_mem_align) == 0x98);
constexpr uint32_t kDioAlign = 0x2000;

// FS_IOC_GETFSUUID (Linux 6.9): a length and up to 16 bytes.
struct FsUuid {
  uint8_t length, uuid[16];
};
constexpr unsigned long kGetFsUuid = _IOR(0x15, 0, FsUuid);

template <typename T>
uint32_t Ask(int fd, unsigned long request) {
  T value = 0;
  return ::ioctl(fd, request, &value) == 0 && value > 0 ? static_cast<uint32_t>(value) : 0;
}

}  // namespace

Geometry GeometryOf(int fd, const struct stat& st) {
  Geometry geometry;
  geometry.device = S_ISBLK(st.st_mode);
  if (geometry.device) {
    if (const uint32_t logical = Ask<int>(fd, BLKSSZGET)) geometry.logical = logical;
    geometry.physical = std::max(geometry.logical, Ask<unsigned>(fd, BLKPBSZGET));
    geometry.minimum_io = Ask<unsigned>(fd, BLKIOMIN);
    geometry.optimal_io = Ask<unsigned>(fd, BLKIOOPT);
    geometry.alignment_offset = Ask<int>(fd, BLKALIGNOFF);
    geometry.rotational = Ask<uint16_t>(fd, BLKROTATIONAL) != 0;
    geometry.readonly = Ask<int>(fd, BLKROGET) != 0;
  } else if (st.st_blksize >= 512 && st.st_blksize <= 65536 &&
             std::has_single_bit(static_cast<uint64_t>(st.st_blksize))) {
    // The block of the file system: a smaller write reads it first. A network's transfer size is no block.
    geometry.physical = static_cast<uint32_t>(st.st_blksize);
  }
  Statx more{};
  if (::syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kDioAlign, &more) == 0) {
    if (more.mask & kDioAlign) {
      geometry.direct_memory = more.dio_mem_align;
      geometry.direct_offset = more.dio_offset_align;
    }
  }
  return geometry;
}

FileIdentity IdentityOf(int fd, const struct stat& st, const struct statfs* fs) {
  FileIdentity identity;
  identity.block = S_ISBLK(st.st_mode);
  identity.device = identity.block ? st.st_rdev : st.st_dev;
  identity.inode = st.st_ino;
  if (identity.block) return identity;
  FsUuid uuid{};
  if (::ioctl(fd, kGetFsUuid, &uuid) == 0 && uuid.length == 16) {
    identity.filesystem.emplace();
    memcpy(identity.filesystem->data(), uuid.uuid, 16);
  }
  if (fs) memcpy(&identity.fsid, &fs->f_fsid, sizeof identity.fsid);
  // The kernel writes an int, whatever the request's number says of its size.
  uint32_t generation[2] = {};
  struct statx more {};
  if (::ioctl(fd, FS_IOC_GETVERSION, generation) == 0)
    identity.generation = generation[0];
  else if (::statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &more) == 0 && more.stx_btime.tv_sec >= 0)
    identity.born = static_cast<uint64_t>(more.stx_btime.tv_sec) * 1'000'000'000 + more.stx_btime.tv_nsec;
  return identity;
}

}  // namespace vioctl::storage
