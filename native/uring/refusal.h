// Why this process has no io_uring: the first refusal that one of its engines met, so that whoever runs it can be told
// once.
#pragma once
#include <optional>
#include <string>

#include "common/error.h"

namespace vioctl::uring {

struct Refusal {
  int err = 0;
  std::string call;  // the system call
};

// Notes that a ring could not be had. Any thread.
void NoteRefusal(const SysError& error);

// Notes that the buffers of an engine could not be registered: an errno of io_uring_register(2). Any thread.
void NoteBufferRefusal(int err);

// The first that was noted; 0 if there was none.
int BufferRefusal();

// The first that was noted. Tries a small ring at the first call, so that the answer is there before rings are needed.
std::optional<Refusal> FirstRefusal();

}  // namespace vioctl::uring
