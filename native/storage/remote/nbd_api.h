// The functions of libnbd that are used (libnbd(3), 1.14 of Debian 12 and later), found at run time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "storage/remote/library.h"

namespace vioctl::storage::nbd {

struct Handle;
struct Completion {
  int (*callback)(void* user, int* error);
  void* user;
  void (*free)(void* user);
};
struct Extents {
  int (*callback)(void* user, const char* context, uint64_t offset, uint32_t* entries, size_t count, int* error);
  void* user;
  void (*free)(void* user);
};

constexpr uint32_t kFlagFua = 1, kFlagNoHole = 2;          // of commands
constexpr unsigned kWantsRead = 1, kWantsWrite = 2;        // directions
constexpr int kMinimum = 0, kPreferred = 1, kMaximum = 2;  // kinds of block sizes
constexpr uint32_t kAllowTcp = 1, kAllowUnix = 2;          // transports
constexpr uint32_t kExtentHole = 1, kExtentZero = 2;       // of base:allocation
constexpr const char* kAllocation = "base:allocation";

struct Api {
  Api() {
    const Library library("libnbd.so.0");
#define VIOCTL_NBD(name) library.Get(name, "nbd_" #name)
    VIOCTL_NBD(create);
    VIOCTL_NBD(close);
    VIOCTL_NBD(get_errno);
    VIOCTL_NBD(add_meta_context);
    VIOCTL_NBD(set_uri_allow_transports);
    VIOCTL_NBD(set_uri_allow_local_file);
    VIOCTL_NBD(aio_connect_uri);
    VIOCTL_NBD(aio_disconnect);
    VIOCTL_NBD(aio_get_fd);
    VIOCTL_NBD(aio_get_direction);
    VIOCTL_NBD(aio_notify_read);
    VIOCTL_NBD(aio_notify_write);
    VIOCTL_NBD(aio_is_ready);
    VIOCTL_NBD(aio_is_processing);
    VIOCTL_NBD(aio_is_dead);
    VIOCTL_NBD(aio_is_closed);
    VIOCTL_NBD(aio_is_negotiating);
    VIOCTL_NBD(set_opt_mode);
    VIOCTL_NBD(aio_opt_info);
    VIOCTL_NBD(aio_opt_abort);
    VIOCTL_NBD(get_size);
    VIOCTL_NBD(get_block_size);
    VIOCTL_NBD(is_read_only);
    VIOCTL_NBD(is_rotational);
    VIOCTL_NBD(can_flush);
    VIOCTL_NBD(can_fua);
    VIOCTL_NBD(can_trim);
    VIOCTL_NBD(can_zero);
    VIOCTL_NBD(can_multi_conn);
    VIOCTL_NBD(can_meta_context);
    VIOCTL_NBD(aio_pread);
    VIOCTL_NBD(aio_pwrite);
    VIOCTL_NBD(aio_flush);
    VIOCTL_NBD(aio_trim);
    VIOCTL_NBD(aio_zero);
    VIOCTL_NBD(aio_block_status);
#undef VIOCTL_NBD
  }

  // Loads the library once. Throws SysError (Library).
  static const Api& Get() {
    static const Api api;
    return api;
  }

  Handle* (*create)();
  void (*close)(Handle*);
  int (*get_errno)();
  int (*add_meta_context)(Handle*, const char*);
  int (*set_uri_allow_transports)(Handle*, uint32_t);
  int (*set_uri_allow_local_file)(Handle*, bool);
  int (*aio_connect_uri)(Handle*, const char*);
  int (*aio_disconnect)(Handle*, uint32_t);
  int (*aio_get_fd)(Handle*);
  unsigned (*aio_get_direction)(Handle*);
  int (*aio_notify_read)(Handle*);
  int (*aio_notify_write)(Handle*);
  int (*aio_is_ready)(Handle*);
  int (*aio_is_processing)(Handle*);
  int (*aio_is_dead)(Handle*);
  int (*aio_is_closed)(Handle*);
  int (*aio_is_negotiating)(Handle*);
  int (*set_opt_mode)(Handle*, bool);
  int (*aio_opt_info)(Handle*, Completion);
  int (*aio_opt_abort)(Handle*);
  int64_t (*get_size)(Handle*);
  int64_t (*get_block_size)(Handle*, int);
  int (*is_read_only)(Handle*);
  int (*is_rotational)(Handle*);
  int (*can_flush)(Handle*);
  int (*can_fua)(Handle*);
  int (*can_trim)(Handle*);
  int (*can_zero)(Handle*);
  int (*can_multi_conn)(Handle*);
  int (*can_meta_context)(Handle*, const char*);
  int64_t (*aio_pread)(Handle*, void*, size_t, uint64_t, Completion, uint32_t);
  int64_t (*aio_pwrite)(Handle*, const void*, size_t, uint64_t, Completion, uint32_t);
  int64_t (*aio_flush)(Handle*, Completion, uint32_t);
  int64_t (*aio_trim)(Handle*, uint64_t, uint64_t, Completion, uint32_t);
  int64_t (*aio_zero)(Handle*, uint64_t, uint64_t, Completion, uint32_t);
  int64_t (*aio_block_status)(Handle*, uint64_t, uint64_t, Extents, Completion, uint32_t);
};

}  // namespace vioctl::storage::nbd
