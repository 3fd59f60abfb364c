#include "binding/core/values.h"

#include <cmath>

namespace vioctl {
namespace {

constexpr double kSafe = 9007199254740991.0;  // Number.MAX_SAFE_INTEGER

[[noreturn]] void Wrong(Napi::Env env, const Place& place, const char* wanted) {
  auto error = Napi::TypeError::New(env, place.Text() + " is not " + wanted);
  error.Set("code", "ERR_INVALID_ARG_TYPE");
  throw error;
}

[[noreturn]] void OutOfRange(Napi::Env env, const Place& place, const char* wanted) {
  auto error = Napi::RangeError::New(env, place.Text() + " is not " + wanted);
  error.Set("code", "ERR_OUT_OF_RANGE");
  throw error;
}

void CheckInteger(const Napi::Value& value, double least, double most, const Place& place, const char* wanted) {
  double number;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok) Wrong(value.Env(), place, "a number");
  if (!(number >= least && number <= most) || number != std::trunc(number)) OutOfRange(value.Env(), place, wanted);
}

void CheckTyped(const Napi::Value& value, napi_typedarray_type wanted, const Place& place, const char* name) {
  bool typed = false;
  napi_is_typedarray(value.Env(), value, &typed);
  if (!typed) Wrong(value.Env(), place, name);
  napi_typedarray_type type;
  size_t length;
  void* data;
  napi_value buffer;
  if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, &buffer, nullptr) != napi_ok ||
      type != wanted)
    Wrong(value.Env(), place, name);
  bool detached = false;
  if (length == 0) napi_is_detached_arraybuffer(value.Env(), buffer, &detached);
  if (detached) Wrong(value.Env(), place, "an array with memory: its buffer is detached");
}

void CheckUint64(const Napi::Value& value, const Place& place) {
  constexpr char kWanted[] = "a whole number of 64 bits";
  bool lossless = false;
  uint64_t word;
  switch (napi_get_value_bigint_uint64(value.Env(), value, &word, &lossless)) {
    case napi_ok:
      if (!lossless) OutOfRange(value.Env(), place, kWanted);
      return;
    default:
      CheckInteger(value, 0, kSafe, place, kWanted);
  }
}

void CheckPath(const Napi::Value& value, const Place& place) {
  if (!value.IsString()) Wrong(value.Env(), place, "a string");
  if (Text(value).find('\0') != std::string::npos) Wrong(value.Env(), place, "a path: it has a NUL");
}

// A code point as UTF-8.
void Append(std::string& text, char32_t point) {
  if (point < 0x80) {
    text += static_cast<char>(point);
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  const unsigned head = more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0;
  text += static_cast<char>(head | point >> (6 * more));
  for (int i = more; i-- > 0;) text += static_cast<char>(0x80 | (point >> (6 * i) & 0x3f));
}

}  // namespace

std::string Text(const Napi::Value& value) {
  const auto string = value.As<Napi::String>();
  std::string text = string.Utf8Value();
  if (text.find("\xef\xbf\xbd") == std::string::npos) return text;  // no surrogate is alone
  text.clear();
  const std::u16string units = string.Utf16Value();
  for (size_t i = 0; i < units.size(); i++) {
    const char16_t unit = units[i], next = i + 1 < units.size() ? units[i + 1] : u'\0';
    if (unit >= 0xd800 && unit < 0xdc00 && next >= 0xdc00 && next < 0xe000) {
      Append(text, 0x10000 + ((unit & 0x3ffu) << 10 | (next & 0x3ffu)));
      i++;
    } else if (unit >= 0xdc80 && unit <= 0xdcff) {
      text += static_cast<char>(unit & 0xff);
    } else {
      Append(text, unit >= 0xd800 && unit < 0xe000 ? U'\ufffd' : char32_t{unit});
    }
  }
  return text;
}

void CheckKind(const Napi::Value& value, Kind kind, const Place& place) {
  if (static_cast<uint8_t>(kind) & 0x80) {
    if (value.IsEmpty() || value.IsUndefined() || value.IsNull()) return;
    kind = static_cast<Kind>(static_cast<uint8_t>(kind) & 0x7f);
  }
  const auto is = [&](bool right, const char* wanted) {
    if (!right) Wrong(value.Env(), place, wanted);
  };
  switch (kind) {
    case Kind::kHandle:
      if (!value.IsExternal()) throw SysError(EINVAL, "handle", place.Text());
      return;
    case Kind::kBoolean:
      return is(value.IsBoolean(), "a boolean");
    case Kind::kNumber:
      is(value.IsNumber(), "a number");
      if (std::isnan(value.As<Napi::Number>().DoubleValue())) OutOfRange(value.Env(), place, "a number");
      return;
    case Kind::kInt32:
      return CheckInteger(value, INT32_MIN, INT32_MAX, place, "a whole number of 32 bits");
    case Kind::kUint32:
      return CheckInteger(value, 0, UINT32_MAX, place, "a whole number of 32 bits from 0 on");
    case Kind::kInteger:
      return CheckInteger(value, -kSafe, kSafe, place, "a safe integer");
    case Kind::kUint64:
      return CheckUint64(value, place);
    case Kind::kText:
      return is(value.IsString(), "a string");
    case Kind::kPath:
      return CheckPath(value, place);
    case Kind::kBytes:
      return CheckTyped(value, napi_uint8_array, place, "a Uint8Array");
    case Kind::kInt32s:
      return CheckTyped(value, napi_int32_array, place, "an Int32Array");
    case Kind::kUint64s:
      return CheckTyped(value, napi_biguint64_array, place, "a BigUint64Array");
    case Kind::kInt64s:
      return CheckTyped(value, napi_bigint64_array, place, "a BigInt64Array");
    case Kind::kFunction:
      return is(value.IsFunction(), "a function");
    case Kind::kObject:
      return is(value.IsObject() && !value.IsFunction(), "an object");
    case Kind::kArray:
      return is(value.IsArray(), "an array");
    case Kind::kMaybe:
      return;
  }
}

Napi::Value Field(const Napi::Object& object, const char* name, Kind kind) {
  const Napi::Value value = object.Get(name);
  CheckKind(value, kind, name);
  return value;
}

Napi::Value Item(const Napi::Array& array, uint32_t index, Kind kind) {
  const Napi::Value value = array.Get(index);
  CheckKind(value, kind, {"item", index});
  return value;
}

std::vector<int> Fds(const Napi::Value& value) {
  CheckKind(value, Kind::kArray, "descriptors");
  const auto list = value.As<Napi::Array>();
  std::vector<int> fds;
  for (uint32_t i = 0; i < list.Length(); i++) fds.push_back(Item(list, i, Kind::kInt32).As<Napi::Number>());
  return fds;
}

std::vector<std::string> Texts(const Napi::Value& value) {
  CheckKind(value, Kind::kArray, "strings");
  const auto list = value.As<Napi::Array>();
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < list.Length(); i++) texts.push_back(Text(Item(list, i, Kind::kPath)));
  return texts;
}

}  // namespace vioctl
