// The two kinds of threads of a Bulk, and what both need.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "os/thread.h"
#include "uring/bulk.h"

namespace vioctl::uring {

constexpr size_t kSlack = 4 << 10;  // behind a buffer: digest code may load a block ahead of the one it works on

// A thread with a ring of its own for `depth` files at once. Throws SysError: io_uring_setup(2), EMFILE, ENOMEM.
std::unique_ptr<BulkThread> MakeRingThread(Bulk& bulk, uint32_t depth);

// A thread that makes one file after the other durable: where there is no io_uring, and several of them share the
// commits of the journal as well.
std::unique_ptr<BulkThread> MakePlainThread(Bulk& bulk);

// Whether reading a file may wait for ever: a FIFO, a socket, a character device. Nothing is opened to find out,
// because the open of a FIFO is seen at its other end.
bool MayWait(const char* path);

// fsync(2) of a file by its name, or fdatasync(2) with `data`. Returns 0, or -errno of what failed first.
int32_t SyncFile(const char* path, bool data);

}  // namespace vioctl::uring
