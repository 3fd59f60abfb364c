// Work that a thread of libuv's pool does, and the promise that tells of its end.
#pragma once
#include <napi.h>

#include <functional>

namespace vioctl {

// Runs `work` on the pool, where it may wait but may not use JavaScript, and then `result` on the thread of the
// environment. The promise that is returned settles with what `result` gives, or with the error that either threw. An
// environment that ends waits for the work and drops its result: `ended` is called at once then, from the environment's
// thread, to cut long work short.
Napi::Value RunAsync(Napi::Env env, std::function<void()> work, std::function<Napi::Value(Napi::Env)> result,
                     std::function<void()> ended = nullptr);

}  // namespace vioctl
