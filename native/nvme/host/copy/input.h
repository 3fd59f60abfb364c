// What is copied into a namespace: a file, device, pipe or socket. All offsets are bytes from where the descriptor was.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "os/bus_guard.h"

namespace vioctl::nvme::host {

class Input {
 public:
  // `stop` ends a wait for more input.
  Input(int fd, const std::atomic<bool>& stop);

  // Bytes from `at` on, which only a file may choose. 0 at the end, -1 with errno (ECANCELED: stopped).
  ssize_t Read(uint8_t* to, uint64_t size, uint64_t at);
  // Bytes of the hole that begins there; 0 if there is data.
  uint64_t HoleAt(uint64_t at) const;
  // Bytes of a file where they lie in the page cache, until Leave(); nullptr if they have to be read. What somebody
  // cuts off meanwhile is zeroes.
  const uint8_t* Look(uint64_t at, uint64_t size);
  void Leave(const uint8_t* data, uint64_t size);
  // Whether there were zeroes in the place of something that was looked at: ask when it was sent.
  bool cut() const { return map_.broken(); }
  // Bytes that the file still has, if it was looked at further than that.
  uint64_t Left() const;
  // Leaves the descriptor where a reader of so much would have left it.
  void End(uint64_t bytes);

 private:
  const int fd_;
  const std::atomic<bool>& stop_;
  bool regular_ = false;
  int64_t position_ = -1, size_ = 0;  // of a file: where it was, and its size
  os::GuardedMapping map_;            // its pages from `mapped_` on
  int64_t mapped_ = 0;
  int64_t looked_ = 0;  // offset of the file up to which its pages were looked at
};

}  // namespace vioctl::nvme::host
