#include "binding/iova.h"

#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "common/error.h"
#include "iova/space.h"

namespace vioctl {

template <>
inline constexpr const char* kHandleName<iova::Space> = "space";

}  // namespace vioctl

namespace vioctl::iova {
namespace {

Outcome Do(Space& space, const uint64_t* r) {
  switch (r[0]) {
    case kMap:
      return space.Map({r[1], r[2], r[3], r[4], static_cast<uint32_t>(r[5])});
    case kUnmap:
      return space.Unmap(r[3]);
    case kFindVa:
      return r[2] ? space.FindVa(r[1], r[2]) : Outcome{EINVAL, 0, 0};
    case kFindIova:
      return r[2] ? space.FindIova(r[3], r[2]) : Outcome{EINVAL, 0, 0};
    case kReset:
      space.Reset();
      return {0, 0, 0};
  }
  return {ENOSYS, 0, 0};
}

// Tells the space which addresses the next requests of a batch are about.
void Warm(const Space& space, const uint64_t* requests, size_t count) {
  uint64_t vas[Space::kAhead], iovas[Space::kAhead];
  size_t va_count = 0, iova_count = 0;
  for (size_t i = 0; i < std::min(count, Space::kAhead); i++) {
    const uint64_t* r = requests + i * kRequestWords;
    if (r[0] == kUnmap || r[0] == kFindIova)
      iovas[iova_count++] = r[3];
    else if (r[0] == kFindVa || (r[0] == kMap && (r[5] & kHasVa)))
      vas[va_count++] = r[1];
  }
  space.Warm(vas, va_count, iovas, iova_count);
}

Napi::Value Array(Napi::Env env, const std::vector<uint64_t>& words) {
  auto array = Napi::BigUint64Array::New(env, words.size());
  std::copy(words.begin(), words.end(), array.Data());
  return array;
}

}  // namespace

Napi::Value Create(const Napi::CallbackInfo& info) {
  auto ranges = info[0].As<Napi::BigUint64Array>(), sizes = info[1].As<Napi::BigUint64Array>();
  if (ranges.ElementLength() % 2) throw SysError(EINVAL, "iova", "ranges");
  if (sizes.ElementLength() == 0 || sizes.ElementLength() > kClasses) throw SysError(EINVAL, "iova", "page sizes");
  std::array<uint64_t, kClasses> pages{};
  for (size_t i = 0; i < sizes.ElementLength(); i++) {
    pages[i] = sizes[i];
    if (pages[i] < 16 || (pages[i] & (pages[i] - 1)) || (i > 0 && pages[i] <= pages[i - 1]))
      throw SysError(EINVAL, "iova", "page sizes");
  }
  std::vector<Extent> extents;
  for (size_t i = 0; i < ranges.ElementLength(); i += 2) extents.push_back({ranges[i], ranges[i + 1]});
  return NewHandle(info.Env(), std::make_shared<Space>(std::move(extents), pages, U64(info[2]), U64(info[3])));
}

Napi::Value Run(const Napi::CallbackInfo& info) {
  Space& space = Get<Space>(info[0]);
  auto requests = info[1].As<Napi::BigUint64Array>(), outcomes = info[2].As<Napi::BigUint64Array>();
  const size_t count = requests.ElementLength() / kRequestWords;
  if (requests.ElementLength() % kRequestWords || outcomes.ElementLength() < count * kOutcomeWords)
    throw SysError(EINVAL, "iova", "requests");
  const uint64_t* in = requests.Data();
  uint64_t* out = outcomes.Data();
  for (size_t i = 0; i < count; i++, in += kRequestWords, out += kOutcomeWords) {
    if (i % Space::kAhead == 0 && count > 1 && space.Large()) Warm(space, in, count - i);
    const Outcome outcome = Do(space, in);
    out[0] = static_cast<uint64_t>(outcome.error);
    out[1] = outcome.at;
    out[2] = outcome.align;
  }
  return Number(info.Env(), count);
}

Napi::Value Ranges(const Napi::CallbackInfo& info) {
  std::vector<uint64_t> words;
  for (const Extent& extent : Get<Space>(info[0]).ranges()) words.insert(words.end(), {extent.start, extent.end});
  return Array(info.Env(), words);
}

Napi::Value Mappings(const Napi::CallbackInfo& info) {
  std::vector<uint64_t> words;
  for (const Mapped& m : Get<Space>(info[0]).List()) words.insert(words.end(), {m.iova, m.size, m.va, m.flags});
  return Array(info.Env(), words);
}

Napi::Value Measure(const Napi::CallbackInfo& info) {
  const Stats s = Get<Space>(info[0]).Measure();
  return Array(info.Env(), {s.mappings, s.bytes, s.temporary, s.free, s.largest});
}

}  // namespace vioctl::iova
