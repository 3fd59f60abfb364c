// Promises that threads of the addon settle: for what may wait for a device without keeping libuv's pool, or the end of
// the environment, waiting with it.
#pragma once
#include <napi.h>

#include <functional>

namespace vioctl {

// Calls `start`, which gets a function to call once from any thread, when the work has ended. `result` is then called
// on the thread of the environment, and the promise settles with what it gives or throws. Nothing is called any more
// once the environment has ended, and it does not wait for the work.
Napi::Value Answer(Napi::Env env, const std::function<void(std::function<void()> ended)>& start,
                   std::function<Napi::Value(Napi::Env)> result);

}  // namespace vioctl
