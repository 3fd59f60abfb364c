// Ends of sources that may take long: a server is told, a device writes back what is dirty. Whoever drops the last
// reference, the event loop or a thread of the network, does not wait for them.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "storage/executor.h"

namespace vioctl::storage {

inline constexpr std::chrono::milliseconds kFarewell{6000};  // that anybody waits for such ends

// Does the end of a source on a thread of the executor, or here if that cannot be. The process waits for it before it
// exits, kFarewell at most. `end` does not throw.
void Farewell(std::shared_ptr<Lane> lane, std::function<void()> end) noexcept;

// Waits for all ends that have begun so far: there were none, they have ended, some still last.
enum class Farewells : uint8_t { kNone, kEnded, kLast };
Farewells AwaitFarewells(std::chrono::milliseconds most = kFarewell);

// Makes a store whose destructor is such an end.
template <typename T, typename... Args>
std::shared_ptr<T> MakeSlow(Args&&... args) {
  return {new T(std::forward<Args>(args)...), [](T* store) { Farewell(store->changes(), [store] { delete store; }); }};
}

}  // namespace vioctl::storage
