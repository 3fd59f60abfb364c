#include "storage/farewell.h"

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <set>

namespace vioctl::storage {
namespace {

struct Ends {
  std::mutex lock;
  std::condition_variable changed;
  uint64_t last = 0;
  std::set<uint64_t> running;

  Ends() {
    // Threads of the executor go on while the process exits, until it is gone.
    std::atexit([] { AwaitFarewells(); });
  }
  static Ends& Shared() {
    static auto* const shared = new Ends;
    return *shared;
  }
  uint64_t Begin() {
    std::lock_guard guard(lock);
    running.insert(++last);
    return last;
  }
  void Ended(uint64_t which) {
    std::lock_guard guard(lock);
    running.erase(which);
    changed.notify_all();
  }
};

}  // namespace

void Farewell(std::shared_ptr<Lane> lane, std::function<void()> end) noexcept {
  uint64_t which = 0;
  try {
    which = Ends::Shared().Begin();
    Executor::Shared().Submit(std::move(lane), [which, end] {
      end();
      Ends::Shared().Ended(which);
    });
  } catch (...) {
    end();
    if (which != 0) Ends::Shared().Ended(which);
  }
}

Farewells AwaitFarewells(std::chrono::milliseconds most) {
  Ends& ends = Ends::Shared();
  std::unique_lock guard(ends.lock);
  if (ends.running.empty()) return Farewells::kNone;
  const auto ended = [&ends, last = ends.last] { return ends.running.empty() || *ends.running.begin() > last; };
  return ends.changed.wait_for(guard, most, ended) ? Farewells::kEnded : Farewells::kLast;
}

}  // namespace vioctl::storage
