// Plain values of JavaScript as C++ has them. An export names the kind of each of its arguments (binding.cc), and they
// are checked before it is called; what lies inside of objects and arrays is checked where it is taken out.
#pragma once
#include <napi.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/error.h"

namespace vioctl {

// What a value may be. A number that is no whole number, or out of range, is a RangeError, another type a TypeError,
// and a value where a handle is wanted is EINVAL.
enum class Kind : uint8_t {
  kHandle,       // an External; its type is checked by Get<T> (handle.h)
  kBoolean,      //
  kNumber,       // any but NaN
  kInt32,        // descriptors, ids
  kUint32,       //
  kInteger,      // a safe integer
  kUint64,       // a safe integer from 0 on, or a bigint
  kText,         // a string
  kPath,         // a string without NUL
  kBytes,        // a Uint8Array with its memory
  kInt32s,       // an Int32Array
  kUint64s,      // a BigUint64Array
  kInt64s,       // a BigInt64Array
  kFunction,     //
  kObject,       //
  kArray,        //
  kMaybe = 0x80  // or undefined, or null
};
constexpr Kind Maybe(Kind kind) { return static_cast<Kind>(static_cast<uint8_t>(kind) | 0x80); }

// What a value is called in errors: a name ("depth"), or one with a number ("argument 2").
struct Place {
  Place(const char* name) : name(name) {}
  Place(const char* name, uint32_t number) : name(name), number(number), numbered(true) {}
  std::string Text() const { return numbered ? std::string(name) + " " + std::to_string(number) : name; }
  const char* name;
  uint32_t number = 0;
  bool numbered = false;
};

// Throws the error of a value that is not of the kind.
void CheckKind(const Napi::Value& value, Kind kind, const Place& place);

// A field of an object and an item of an array, of the kind wanted.
Napi::Value Field(const Napi::Object& object, const char* name, Kind kind);
Napi::Value Item(const Napi::Array& array, uint32_t index, Kind kind);

// A count or size as a number; exact up to 2^53.
inline Napi::Number Number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

inline uint32_t U32(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }

// A number or a bigint that was checked as kUint64.
inline uint64_t U64(const Napi::Value& value) {
  if (value.IsNumber()) return static_cast<uint64_t>(value.As<Napi::Number>().Int64Value());
  bool lossless = false;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

// UTF-8, but U+DC80 to U+DCFF alone are the bytes of a name that is not (src/common/text/names.ts).
std::string Text(const Napi::Value& value);

// The bytes of a value that was checked as kBytes.
inline std::span<uint8_t> Bytes(const Napi::Value& value) {
  auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

// An array of descriptors, and one of strings.
std::vector<int> Fds(const Napi::Value& value);
std::vector<std::string> Texts(const Napi::Value& value);

}  // namespace vioctl
