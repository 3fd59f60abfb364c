// Exports of native/iova. One call carries a batch of requests.
#pragma once
#include <napi.h>

namespace vioctl::iova {

// create(ranges: BigUint64Array [start, end]…, pages: BigUint64Array, floor: bigint, chunk: bigint): space
Napi::Value Create(const Napi::CallbackInfo& info);
// run(space, requests: BigUint64Array, outcomes: BigUint64Array): number of requests done
Napi::Value Run(const Napi::CallbackInfo& info);
Napi::Value Ranges(const Napi::CallbackInfo& info);    // ranges(space): BigUint64Array [start, end]…
Napi::Value Mappings(const Napi::CallbackInfo& info);  // mappings(space): BigUint64Array [iova, size, va, flags]…
Napi::Value Measure(
    const Napi::CallbackInfo& info);  // measure(space): BigUint64Array [mappings, bytes, temporary, free, largest]

}  // namespace vioctl::iova
