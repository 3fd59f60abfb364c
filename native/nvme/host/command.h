// A command of a host while it is outstanding.
#pragma once
#include <sys/uio.h>

#include <cstdint>

#include "nvme/command.h"
#include "nvme/wire.h"

namespace vioctl::nvme::host {

// A command, part of the object that asks. It and its memory stay where they are until done() is called, once.
struct Command {
  Sqe sqe{};                     // CID, PSDT and SGL are filled in by the queue
  const iovec* parts = nullptr;  // the data, from byte `skip` of these on
  int count = 0;
  uint64_t skip = 0;
  uint32_t length = 0;  // bytes; 0: no data
  Direction direction = kNoData;
  uint64_t timeout = 0;                       // ns; 0: none
  void (*done)(Command*, int err) = nullptr;  // 0: `cqe` has the answer; EBADMSG: data with a wrong digest
  void* owner = nullptr;                      // of whoever asks
  Cqe cqe{};
  uint64_t started = 0;  // ns

  Status status() const { return static_cast<Status>(cqe.status >> 1); }

  // The rest is the queue's.
  uint64_t deadline = 0;
  uint32_t moved = 0, unsent = 0;  // unsent: pieces of its memory that wait for the socket
  uint64_t answered = 0;           // the data of its last R2T has left when so many bytes of the queue have
  uint16_t cid = 0;
  bool in_capsule = false, bad_digest = false, aborted = false;
};

}  // namespace vioctl::nvme::host
