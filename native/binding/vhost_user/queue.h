// What the JavaScript faces of queues share.
#pragma once
#include <napi.h>

#include <memory>

#include "binding/core/call.h"
#include "vhost_user/virtqueue.h"

namespace vioctl::vhost_user {

// The memory behind a NativeMemory object. Throws SysError EINVAL for another object and once it is closed.
std::shared_ptr<const GuestMemory> MemoryOf(const Napi::Value& value);
// A RingLayout object.
Virtqueue::Layout LayoutOf(const Napi::Value& value);

}  // namespace vioctl::vhost_user
