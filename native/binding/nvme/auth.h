// Exports of native/nvme for authentication.
#pragma once
#include <napi.h>

namespace vioctl::nvme {

// dhPower(base, exponent, modulus): Promise<Buffer>, computed on a thread of libuv's pool
Napi::Value DhPower(const Napi::CallbackInfo& info);

}  // namespace vioctl::nvme
