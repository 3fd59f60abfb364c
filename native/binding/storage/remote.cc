#include "binding/storage/remote.h"

#include <cerrno>
#include <optional>

#include "binding/core/answers.h"
#include "binding/storage.h"
#include "storage/farewell.h"

namespace vioctl::storage {

Napi::Value OpenRemote(Napi::Env env, std::function<std::shared_ptr<Store>()> open) {
  struct Opening {
    std::shared_ptr<Store> store;
    std::optional<SysError> failure;
  };
  const auto opening = std::make_shared<Opening>();
  const auto start = [&](const std::function<void()>& ended) {
    Executor::Shared().Submit(std::make_shared<Lane>(), [opening, open, ended] {
      try {
        try {
          opening->store = open();
        } catch (const SysError& error) {
          // This process may just be letting go of it.
          if (error.err() != EBUSY || AwaitFarewells() != Farewells::kEnded) throw;
          opening->store = open();
        }
      } catch (const SysError& error) {
        opening->failure = error;
      }
      ended();
    });
  };
  return Answer(env, start, [opening](Napi::Env of) -> Napi::Value {
    if (opening->failure) throw *opening->failure;
    return NewHandle(of, std::move(opening->store));
  });
}

}  // namespace vioctl::storage
