// Aligned buffers for I/O past the page cache (O_DIRECT) that a ring has registered, by size class: the kernel need not
// pin their pages for each request. Of the ring's thread. The buffers outlive the ring.
#pragma once
#include <cstdint>
#include <vector>

#include "os/mapping.h"
#include "uring/ring.h"

namespace vioctl::storage {

class RingBuffers {
 public:
  // Registers them with a ring, once for each ring. Where the limit of locked memory (RLIMIT_MEMLOCK) does not allow
  // all, there are fewer, or none: that is noted (uring/refusal.h).
  void Register(uring::Ring& ring);
  // The ring is gone, or another one comes.
  void Forget() { registered_ = tried_ = false; }
  bool tried() const { return tried_; }

  // A free buffer of at least `size` bytes; nullptr where none is left, or none is registered.
  uint8_t* Take(uint32_t size);
  // False: it is none of these.
  bool Give(uint8_t* buffer);
  // Whether the ring can use this memory as its fixed buffer 0.
  bool Fixed(const void* at) const { return registered_ && Holds(at); }

 private:
  struct Class {
    uint32_t size, count;
  };
  // 7 MiB: less than the limit that systemd and the kernel (since 5.16) give a user, 8 MiB.
  static constexpr Class kClasses[] = {{4096, 256}, {16384, 64}, {65536, 16}, {262144, 16}};
  static constexpr int kShrinks = 3;  // tries with half as many each time

  bool Holds(const void* at) const;
  void Lay(int shrink);

  Mapping memory_;
  std::vector<uint8_t*> free_[std::size(kClasses)];
  const uint8_t* ends_[std::size(kClasses)] = {};  // of the classes, one behind the other
  uint32_t out_ = 0;                               // buffers that somebody has
  bool registered_ = false, tried_ = false;
};

}  // namespace vioctl::storage
