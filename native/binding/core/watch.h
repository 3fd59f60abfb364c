// Bridge from a descriptor (an eventfd, as a rule) to Node's event loop.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>

namespace vioctl {

// Watches one descriptor in the event loop of its environment and calls back on the main thread, with a handle scope
// open, whenever it is readable. Does not own the descriptor: stop watching before you close it.
//
// An environment that ends (a worker that exits or is terminated) stops its watches by itself and waits until libuv has
// closed them. It runs the finalizers of handles after that, so a Watch may outlive what it watched with.
class Watch {
 public:
  Watch(Napi::Env env, int fd, std::function<void()> readable);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Whether the watch keeps the process alive (it does, at first).
  void Ref(bool keep);

 private:
  struct Handle;
  Handle* handle_;
};

// The JavaScript face of a watch: { close(), ref(keep) }. Both do nothing once it is closed.
Napi::Object WatchObject(Napi::Env env, const std::shared_ptr<std::unique_ptr<Watch>>& watch);

// JS: watchEventfd(fd, callback(count)) -> { close(), ref(keep) }
Napi::Value WatchEventfd(const Napi::CallbackInfo& info);

}  // namespace vioctl
