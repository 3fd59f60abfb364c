#include "migration/sink.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "common/error.h"
#include "migration/source.h"
#include "os/bus_guard.h"

namespace vioctl::migration {
namespace {

constexpr size_t kBatch = 512;
// A run of this size is worth a fallocate(2) on ext4.
constexpr uint64_t kReserve = 128 << 10;
const uint8_t kZeros[64 << 10] = {};

}  // namespace

// ext4 enters each delayed block of a file with holes into a tree of its own; blocks that are there already spare it
// that (a third of the time of writing). Other file systems have nothing of it, or are slower so.
Sink::Sink(int fd) : fd_(fd) {
  struct statfs fs {};
  reserves_ = fstatfs(fd, &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
}

void Sink::Place(size_t block, Placement placement) {
  if (blocks_.size() <= block) blocks_.resize(block + 1);
  blocks_[block].push_back(placement);
}

template <typename F>
void Sink::Each(size_t block, uint64_t offset, uint64_t size, F&& use) const {
  if (block >= blocks_.size()) return;
  for (const Placement& place : blocks_[block]) {
    const uint64_t from = std::max(offset, place.from), to = std::min(offset + size, place.to);
    if (from < to) use(place.out + (from - place.from), from - offset, to - from);
  }
}

bool Sink::Wants(size_t block, uint64_t offset, uint64_t size) const {
  bool any = false;
  Each(block, offset, size, [&any](uint64_t, uint64_t, uint64_t) { any = true; });
  return any;
}

void Sink::Queue(uint64_t out, const uint8_t* bytes, size_t size) {
  if (!queue_.empty() && (out != next_ || queue_.size() == kBatch)) Flush();
  if (queue_.empty()) {
    queue_.reserve(kBatch);
    start_ = next_ = out;
  }
  queue_.push_back(iovec{const_cast<uint8_t*>(bytes), size});
  next_ += size;
}

void Sink::Write(size_t block, uint64_t offset, const uint8_t* bytes, size_t size) {
  Each(block, offset, size, [&](uint64_t out, uint64_t into, uint64_t n) { Queue(out, bytes + into, n); });
}

void Sink::Zero(size_t block, uint64_t offset, size_t size) {
  Each(block, offset, size, [&](uint64_t out, uint64_t, uint64_t n) {
    for (uint64_t done = 0; done < n; done += sizeof kZeros)
      Queue(out + done, kZeros, static_cast<size_t>(std::min<uint64_t>(sizeof kZeros, n - done)));
  });
}

bool Sink::Copy(size_t block, uint64_t offset, int from, uint64_t at, uint64_t size) {
  Flush();
  bool whole = true;
  Each(block, offset, size, [&](uint64_t out, uint64_t into, uint64_t n) {
    off_t in = static_cast<off_t>(at + into), to = static_cast<off_t>(out);
    while (n > 0) {
      ssize_t got = ::copy_file_range(from, &in, fd_, &to, std::min<uint64_t>(n, 1 << 30), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP || errno == EBADF)) {
        // Not between these two files: by hand, in pieces.
        static thread_local std::unique_ptr<uint8_t[]> buffer(new uint8_t[256 << 10]);
        got = ::pread(from, buffer.get(), std::min<uint64_t>(n, 256 << 10), in);
        if (got > 0) {
          ssize_t put = Check(::pwrite(fd_, buffer.get(), static_cast<size_t>(got), to), "pwrite");
          got = put;
          in += put;
          to += put;
        }
      }
      Check(got, "copy_file_range");
      if (got == 0) {
        whole = false;
        return;
      }
      n -= static_cast<uint64_t>(got);
      written_ += static_cast<uint64_t>(got);
    }
  });
  return whole;
}

void Sink::ReadBack(size_t block, uint64_t offset, uint8_t* bytes, size_t size) {
  Flush();
  memset(bytes, 0, size);
  Each(block, offset, size, [&](uint64_t out, uint64_t into, uint64_t n) {
    while (n > 0) {
      const ssize_t got = ::pread(fd_, bytes + into, n, static_cast<off_t>(out));
      if (got < 0 && errno == EINTR) continue;
      if (Check(got, "pread") == 0) return;
      into += static_cast<uint64_t>(got);
      out += static_cast<uint64_t>(got);
      n -= static_cast<uint64_t>(got);
    }
  });
}

void Sink::Flush() {
  size_t first = 0;
  bool touched = false;
  if (reserves_ && !queue_.empty() && next_ - start_ >= kReserve) {
    // Only a hint: what it cannot do, the write says (no room, or blocks of the old ext3 kind).
    if (fallocate(fd_, 0, static_cast<off_t>(start_), static_cast<off_t>(next_ - start_)) < 0) reserves_ = false;
  }
  while (first < queue_.size()) {
    const ssize_t put =
        ::pwritev(fd_, queue_.data() + first, static_cast<int>(queue_.size() - first), static_cast<off_t>(start_));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EFAULT && !touched) {
      touched = true;
      os::Touch(queue_.data() + first, static_cast<int>(queue_.size() - first));
      continue;
    }
    if (put <= 0) {
      queue_.clear();
      throw SysError(put < 0 ? errno : ENOSPC, "pwritev");
    }
    written_ += static_cast<uint64_t>(put);
    start_ += static_cast<uint64_t>(put);
    // A short write goes on where it stopped.
    size_t left = static_cast<size_t>(put);
    while (left > 0 && left >= queue_[first].iov_len) left -= queue_[first++].iov_len;
    if (left > 0) {
      queue_[first].iov_base = static_cast<uint8_t*>(queue_[first].iov_base) + left;
      queue_[first].iov_len -= left;
    }
  }
  queue_.clear();
}

}  // namespace vioctl::migration
