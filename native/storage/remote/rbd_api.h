// The functions of librados and librbd that are used (16.2 of Debian 12 and later), found at run time.
#pragma once
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "storage/remote/library.h"

namespace vioctl::storage::rbd {

using Cluster = void*;
using Pool = void*;
using Image = void*;
using Completion = void*;

constexpr uint64_t kExclusiveLock = 1 << 2;  // a feature of images
constexpr int kLockExclusive = 0;            // a mode of rbd_lock_acquire
constexpr int kThick = 1;                    // of rbd_aio_write_zeroes: the space stays taken

// The begin of rbd_image_info_t; the functions that fill it are told the size of all of it.
struct Info {
  uint64_t size, object_size;
  char rest[496];
};

struct Api {
  Api() {
    const Library rados("librados.so.2"), rbd("librbd.so.1");
#define VIOCTL_RADOS(name) rados.Get(rados_##name, "rados_" #name)
#define VIOCTL_RBD(name) rbd.Get(name, "rbd_" #name)
    VIOCTL_RADOS(create2);
    VIOCTL_RADOS(conf_read_file);
    VIOCTL_RADOS(conf_set);
    VIOCTL_RADOS(connect);
    VIOCTL_RADOS(shutdown);
    VIOCTL_RADOS(cluster_fsid);
    VIOCTL_RADOS(ioctx_create);
    VIOCTL_RADOS(ioctx_destroy);
    VIOCTL_RADOS(ioctx_set_namespace);
    VIOCTL_RADOS(ioctx_get_id);
    VIOCTL_RBD(open);
    VIOCTL_RBD(open_read_only);
    VIOCTL_RBD(close);
    VIOCTL_RBD(stat);
    VIOCTL_RBD(get_size);
    VIOCTL_RBD(get_id);
    VIOCTL_RBD(get_features);
    VIOCTL_RBD(lock_acquire);
    VIOCTL_RBD(lock_release);
    VIOCTL_RBD(aio_create_completion);
    VIOCTL_RBD(aio_release);
    VIOCTL_RBD(aio_get_return_value);
    VIOCTL_RBD(aio_readv);
    VIOCTL_RBD(aio_writev);
    VIOCTL_RBD(aio_flush);
    VIOCTL_RBD(aio_discard);
    VIOCTL_RBD(aio_write_zeroes);
#undef VIOCTL_RADOS
#undef VIOCTL_RBD
  }

  // Loads the libraries once. Throws SysError (Library).
  static const Api& Get() {
    static const Api api;
    return api;
  }

  int (*rados_create2)(Cluster*, const char* cluster, const char* name, uint64_t flags);
  int (*rados_conf_read_file)(Cluster, const char* path);
  int (*rados_conf_set)(Cluster, const char* option, const char* value);
  int (*rados_connect)(Cluster);
  void (*rados_shutdown)(Cluster);
  int (*rados_cluster_fsid)(Cluster, char* to, size_t size);
  int (*rados_ioctx_create)(Cluster, const char* pool, Pool*);
  void (*rados_ioctx_destroy)(Pool);
  void (*rados_ioctx_set_namespace)(Pool, const char*);
  int64_t (*rados_ioctx_get_id)(Pool);
  int (*open)(Pool, const char* name, Image*, const char* snapshot);
  int (*open_read_only)(Pool, const char* name, Image*, const char* snapshot);
  int (*close)(Image);
  int (*stat)(Image, Info*, size_t);
  int (*get_size)(Image, uint64_t*);
  int (*get_id)(Image, char* to, size_t size);
  int (*get_features)(Image, uint64_t*);
  int (*lock_acquire)(Image, int mode);
  int (*lock_release)(Image);
  int (*aio_create_completion)(void* user, void (*done)(Completion, void* user), Completion*);
  void (*aio_release)(Completion);
  ssize_t (*aio_get_return_value)(Completion);
  int (*aio_readv)(Image, const iovec*, int count, uint64_t offset, Completion);
  int (*aio_writev)(Image, const iovec*, int count, uint64_t offset, Completion);
  int (*aio_flush)(Image, Completion);
  int (*aio_discard)(Image, uint64_t offset, uint64_t length, Completion);
  int (*aio_write_zeroes)(Image, uint64_t offset, size_t length, Completion, int zero_flags, int op_flags);
};

}  // namespace vioctl::storage::rbd
