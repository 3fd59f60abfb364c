// Plain values of JavaScript as C++ has them. The types are those that src/native promises; what Node-API itself
// refuses it throws.
#pragma once
#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/error.h"

namespace vioctl {

inline uint32_t U32(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }

// A number or a bigint. Throws SysError EOVERFLOW for a bigint that 64 bits do not hold.
inline uint64_t U64(const Napi::Value& value) {
  if (value.IsNumber()) return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
  bool lossless = false;
  const uint64_t word = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) throw SysError(EOVERFLOW, "bigint");
  return word;
}

inline std::string Text(const Napi::Value& value) { return value.As<Napi::String>().Utf8Value(); }

// An array of descriptors; none where there is no array.
inline std::vector<int> Fds(const Napi::Value& value) {
  std::vector<int> fds;
  if (!value.IsArray()) return fds;
  const auto list = value.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) fds.push_back(list.Get(i).As<Napi::Number>());
  return fds;
}

}  // namespace vioctl
