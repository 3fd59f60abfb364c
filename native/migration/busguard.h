// Reading a mapped file that another process truncates raises SIGBUS. A guard turns that into zeros and a flag.
#pragma once
#include <cstddef>

namespace vioctl::migration {

// Watches one mapping of the calling thread, of up to eight at a time; a ninth goes unwatched.
class BusGuard {
 public:
  BusGuard() = default;
  ~BusGuard() { Reset(); }
  BusGuard(const BusGuard&) = delete;
  BusGuard& operator=(const BusGuard&) = delete;

  // Starts to watch [at, at + size).
  void Watch(void* at, size_t size);
  void Reset();

 private:
  void* at_ = nullptr;
};

// True once after a watched mapping of this thread lost pages since the last call.
bool TookBusError();

}  // namespace vioctl::migration
