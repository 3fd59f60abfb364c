// Exports of the host's side of native/nvme.
#pragma once
#include <napi.h>

namespace vioctl::nvme::host {

// loadRun(options): {done: Promise<result>, stop()}; options and result as in src/native/nvme-host.ts
Napi::Value LoadRun(const Napi::CallbackInfo& info);

}  // namespace vioctl::nvme::host
