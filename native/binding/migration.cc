#include "binding/migration.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "common/error.h"
#include "migration/ram.h"
#include "migration/source.h"
#include "os/fd.h"

namespace vioctl {

template <>
inline constexpr const char* kHandleName<migration::Source> = "source";
template <>
inline constexpr const char* kHandleName<migration::Ram> = "ram";

}  // namespace vioctl

namespace vioctl::migration {
namespace {

// True if the file shrank under its mapping during a call: what was read were zeros that nobody wrote, and the source
// gives nothing any more. To be asked after every call that looked at bytes, before anything is made of them.
bool Shrank(Source& source) {
  if (!source.TakeLoss()) return false;
  source.Break(EIO, source.SizeNow());
  return true;
}

// The index of a block of the walk. Throws SysError EINVAL for another one.
size_t BlockOf(Ram& ram, const Napi::Value& value) {
  const uint32_t index = U32(value);
  if (index >= ram.blocks().size()) throw SysError(EINVAL, "block", std::to_string(index));
  return index;
}

// The end of a source as it stands.
void PutEnd(Napi::Object to, const Source& source) {
  to.Set("end", kEndNames[static_cast<int>(source.end())]);
  to.Set("errno", ErrnoName(source.error()));
  to.Set("position", Number(to.Env(), source.position()));
}

}  // namespace

Napi::Value OpenSource(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  const int fd = Field(options, "fd", Kind::kInt32).As<Napi::Number>();
  const std::string kind = Text(Field(options, "kind", Kind::kText));
  const uint64_t start = U64(Field(options, "start", Kind::kUint64));
  const bool gzip = options.Get("gzip").ToBoolean();
  std::unique_ptr<Source> source;
  if (kind == "file") {
    source = OpenMapped(fd, start);
  } else if (kind == "extents") {
    const auto flat = Field(options, "extents", Kind::kInt64s).As<Napi::BigInt64Array>();
    std::vector<Extent> extents;
    for (size_t i = 0; i + 3 <= flat.ElementLength(); i += 3) {
      const int64_t* at = flat.Data() + i;
      extents.push_back(Extent{static_cast<uint64_t>(at[0]), static_cast<uint64_t>(at[1]), at[2]});
    }
    source = OpenExtents(fd, std::move(extents));
  } else if (kind == "pipe") {
    const Napi::Value prefix = Field(options, "prefix", Maybe(Kind::kBytes));
    const auto bytes = prefix.IsTypedArray() ? Bytes(prefix) : std::span<uint8_t>();
    source = OpenPipe(fd, start, bytes.data(), bytes.size());
  } else {
    throw SysError(EINVAL, "source", kind);
  }
  if (gzip) source = OpenGzip(std::move(source));
  return NewHandle(info.Env(), std::shared_ptr<Source>(std::move(source)));
}

Napi::Value NewPipe(const Napi::CallbackInfo& info) {
  os::Pipe ends = os::NewPipe();
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  pair.Set(0u, ends.reader.Release());
  pair.Set(1u, ends.writer.Release());
  return pair;
}

Napi::Value SeekFd(const Napi::CallbackInfo& info) {
  Check(::lseek(info[0].As<Napi::Number>(), static_cast<off_t>(U64(info[1])), SEEK_SET), "lseek");
  return info.Env().Undefined();
}

Napi::Value Allocate(const Napi::CallbackInfo& info) {
  const int error = ::posix_fallocate(info[0].As<Napi::Number>(), 0, static_cast<off_t>(U64(info[1])));
  if (error != 0 && error != EOPNOTSUPP) throw SysError(error, "posix_fallocate");
  return info.Env().Undefined();
}

Napi::Value SetNonblocking(const Napi::CallbackInfo& info) {
  os::SetNonblocking(info[0].As<Napi::Number>());
  return info.Env().Undefined();
}

Napi::Value SourceState(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[0]);
  Napi::Object state = Napi::Object::New(info.Env());
  PutEnd(state, source);
  state.Set("seekable", source.seekable());
  return state;
}

Napi::Value Read(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[0]);
  // Read into a buffer that grows with what is there: the size may come from the file.
  uint64_t want = U64(info[1]);
  constexpr uint64_t kStep = 4 << 20;
  if (want <= kStep) {
    auto buffer = Napi::Buffer<uint8_t>::New(info.Env(), static_cast<size_t>(want));
    const size_t got = source.Read(buffer.Data(), static_cast<size_t>(want));
    if (Shrank(source)) return Napi::Buffer<uint8_t>::New(info.Env(), 0);
    if (got == want) return buffer;
    return Napi::Buffer<uint8_t>::Copy(info.Env(), buffer.Data(), got);
  }
  std::vector<uint8_t> bytes;
  while (want > 0) {
    const size_t part = static_cast<size_t>(std::min(want, kStep)), before = bytes.size();
    bytes.resize(before + part);
    const size_t got = source.Read(bytes.data() + before, part);
    want -= got;
    if (got < part) {
      bytes.resize(before + got);
      break;
    }
  }
  if (Shrank(source)) bytes.clear();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), bytes.data(), bytes.size());
}

Napi::Value Peek(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[0]);
  size_t size = static_cast<size_t>(std::min<uint64_t>(U64(info[1]), kMaxNeed));
  const uint8_t* at = source.Need(size);
  if (!at) {
    size = source.have();
    at = size > 0 ? source.Need(size) : nullptr;
  }
  const auto bytes = Napi::Buffer<uint8_t>::Copy(info.Env(), at, at ? size : 0);
  return Shrank(source) ? Napi::Buffer<uint8_t>::New(info.Env(), 0) : bytes;
}

Napi::Value NextNumber(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[0]);
  const size_t size = std::min<size_t>(U32(info[1]), 6);
  const uint8_t* at = source.Need(size);
  uint64_t value = 0;
  for (size_t i = 0; at && i < size; ++i) value = value << 8 | at[i];
  if (!at || Shrank(source)) return Napi::Number::New(info.Env(), -1);
  if (info[2].As<Napi::Boolean>()) source.Consume(size);
  return Number(info.Env(), value);
}

Napi::Value Position(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Source>(info[0]).position()); }

Napi::Value SourceSize(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Source>(info[0]).size()); }

Napi::Value Skip(const Napi::CallbackInfo& info) { return Number(info.Env(), Get<Source>(info[0]).Skip(U64(info[1]))); }

Napi::Value Seek(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[0]);
  if (!source.seekable()) throw SysError(ESPIPE, "lseek");
  source.Seek(U64(info[1]));
  return info.Env().Undefined();
}

Napi::Value SetLimit(const Napi::CallbackInfo& info) {
  const int64_t end = info[1].As<Napi::Number>().Int64Value();
  Get<Source>(info[0]).Limit(end < 0 ? UINT64_MAX : static_cast<uint64_t>(end));
  return info.Env().Undefined();
}

namespace {

bool PrintableName(const uint8_t* name, size_t size) {
  for (size_t i = 0; i < size; ++i)
    if (name[i] < 0x20 || name[i] > 0x7e) return false;
  return true;
}

// Whether a record may begin here: `left` bytes are known. What the bytes cannot deny is taken.
bool MayBeRecord(const uint8_t* at, size_t left) {
  if (left == 0) return true;  // the end of the stream
  switch (at[0]) {
    case 0x00:  // EOF: nothing, or a VM description, behind it
      return left == 1 || at[1] == 0x06;
    case 0x01:
    case 0x04: {
      if (left < 6) return true;
      const size_t length = at[5];
      return length > 0 && PrintableName(at + 6, std::min(length, left - 6));
    }
    case 0x02:
    case 0x03:
      return left < 3 || (at[1] == 0 && at[2] == 0);
    case 0x06:
      return left < 6 || at[5] == '{';
    case 0x08:
      return left < 3 || (at[1] == 0 && at[2] > 0 && at[2] < 32);
    default:
      return false;
  }
}

}  // namespace

Napi::Value FindFooter(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[0]);
  const uint32_t id = U32(info[1]);
  const uint64_t most = U64(info[2]), from = source.position();
  const uint8_t footer[5] = {0x7e, static_cast<uint8_t>(id >> 24), static_cast<uint8_t>(id >> 16),
                             static_cast<uint8_t>(id >> 8), static_cast<uint8_t>(id)};
  constexpr size_t kAhead = 5 + 6 + 255;
  while (source.position() - from < most) {
    const uint8_t* at = source.Need(kAhead);
    size_t ready = at ? source.Ready() : source.have();
    const bool last = at == nullptr;
    if (last) {
      if (ready < 5) break;
      at = source.Need(ready);
    }
    const size_t tries = last ? ready - 4 : ready - kAhead + 1;
    size_t i = 0;
    while (i < tries) {
      const void* next = memchr(at + i, 0x7e, tries - i);
      if (!next) {
        i = tries;
        break;
      }
      i = static_cast<size_t>(static_cast<const uint8_t*>(next) - at);
      if (memcmp(at + i, footer, 5) == 0 && MayBeRecord(at + i + 5, ready - i - 5)) {
        source.Consume(i);
        if (Shrank(source)) return Napi::Number::New(info.Env(), -1);
        return Number(info.Env(), source.position() - from);
      }
      ++i;
    }
    source.Consume(i);
    if (last || Shrank(source)) break;
  }
  return Napi::Number::New(info.Env(), -1);
}

Napi::Value NewRam(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  Ram::Options options;
  options.page_size = U32(Field(given, "pageSize", Kind::kUint32));
  if (options.page_size < 256 || options.page_size > (64 << 10) || (options.page_size & (options.page_size - 1)))
    throw SysError(EINVAL, "page size");
  options.check = given.Get("check").ToBoolean();
  options.hash = given.Get("hash").ToBoolean();
  if (const Napi::Value bytes = Field(given, "pageMaps", Maybe(Kind::kUint64)); !bytes.IsUndefined())
    options.page_maps.left = U64(bytes);
  if (const Napi::Value seed = Field(given, "seed", Maybe(Kind::kUint64)); !seed.IsUndefined())
    options.seed = U64(seed);
  return NewHandle(info.Env(), std::make_shared<Ram>(options));
}

Napi::Value AddBlock(const Napi::CallbackInfo& info) {
  // Names come from the file as Latin-1 text, so that every byte survives the way.
  const std::u16string wide = info[1].As<Napi::String>();
  std::string name(wide.begin(), wide.end());
  return Number(info.Env(), Get<Ram>(info[0]).Add(std::move(name), U64(info[2])));
}

Napi::Value StepRam(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  Source& source = Get<Source>(info[1]);
  Ram::Stop stop = ram.Step(source, U64(info[2]));
  if (Shrank(source)) {
    ram.Broken(source.position());
    stop = Ram::Stop::kEnd;
  }
  Napi::Object result = Napi::Object::New(info.Env());
  PutEnd(result, source);
  result.Set("stop", kStopNames[static_cast<int>(stop)]);
  result.Set("value", Napi::BigInt::New(info.Env(), ram.value()));
  result.Set("record", Number(info.Env(), ram.record()));
  result.Set("page", Napi::BigInt::New(info.Env(), ram.page()));
  result.Set("block", ram.current());
  return result;
}

Napi::Value ReadBitmap(const Napi::CallbackInfo& info) {
  Source& source = Get<Source>(info[1]);
  Ram& ram = Get<Ram>(info[0]);
  const std::string name = Text(info[3]);
  const auto* found = std::ranges::find(kOrderNames, name);
  if (found == std::end(kOrderNames)) throw SysError(EINVAL, "order", name);
  const auto order = static_cast<Order>(found - kOrderNames);
  const bool whole = ram.ReadBitmap(source, BlockOf(ram, info[2]), order);
  return Napi::Boolean::New(info.Env(), !Shrank(source) && whole);
}

Napi::Value SettleBitmap(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  const Order order = ram.Settle(BlockOf(ram, info[1]));
  return Napi::String::New(info.Env(), kOrderNames[static_cast<int>(order)]);
}

Napi::Value MappedPages(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  const uint64_t next = ram.MappedPages(Get<Source>(info[1]), BlockOf(ram, info[2]), U64(info[3]), U64(info[4]),
                                        U64(info[5]), info[6].As<Napi::Number>());
  Source& source = Get<Source>(info[1]);
  const bool shrank = Shrank(source);
  if (shrank) ram.Broken(source.position());
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("next", Number(info.Env(), next));
  result.Set("ended", shrank || ram.ended());
  result.Set("record", Number(info.Env(), ram.record()));
  return result;
}

Napi::Value CutMapped(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  ram.CutMapped(BlockOf(ram, info[1]), U64(info[2]));
  return info.Env().Undefined();
}

Napi::Value ExtractTo(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  auto sink = std::make_unique<Sink>(info[1].As<Napi::Number>());
  const auto flat = info[2].As<Napi::BigInt64Array>();
  for (size_t i = 0; i + 4 <= flat.ElementLength(); i += 4) {
    const int64_t* at = flat.Data() + i;
    if (at[0] < 0 || static_cast<uint64_t>(at[0]) >= ram.blocks().size() || at[1] < 0 || at[2] < at[1] || at[3] < 0)
      throw SysError(EINVAL, "extract", "placement");
    sink->Place(static_cast<size_t>(at[0]),
                Placement{static_cast<uint64_t>(at[1]), static_cast<uint64_t>(at[2]), static_cast<uint64_t>(at[3])});
  }
  ram.Extract(std::move(sink));
  return info.Env().Undefined();
}

Napi::Value BlockStates(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  Napi::Env env = info.Env();
  Napi::Array states = Napi::Array::New(env);
  uint32_t i = 0;
  for (const Block& block : ram.blocks()) {
    Napi::Object state = Napi::Object::New(env);
    state.Set("zero", Number(env, block.zero));
    state.Set("normal", Number(env, block.normal));
    state.Set("xbzrle", Number(env, block.xbzrle));
    state.Set("compressed", Number(env, block.compressed));
    state.Set("resent", Number(env, block.resent));
    state.Set("bytes", Number(env, block.bytes));
    state.Set("undecodable", Number(env, block.undecodable));
    state.Set("unhashed", Number(env, block.unhashed));
    state.Set("seen", Number(env, block.seen.count()));
    state.Set("content", Number(env, block.content.count()));
    state.Set("tracked", block.seen.full() && block.content.full());
    states.Set(i++, state);
  }
  return states;
}

Napi::Value PageRuns(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  const Block& block = ram.blocks()[BlockOf(ram, info[1])];
  const std::string kind = Text(info[2]);
  uint64_t page = U64(info[3]);
  const uint64_t most = U64(info[4]);
  // Behind the last page that any record gave, nothing needs looking at: it is one run.
  const uint64_t pages = (block.length - 1) / ram.options().page_size + 1;
  const uint64_t noted = std::min(pages, std::max(block.seen.end(), block.content.end()));
  const auto has = [&block, &kind](uint64_t i) {
    if (kind == "content") return block.content.Get(i);
    return kind == "missing" ? !block.seen.Get(i) : block.seen.Get(i);
  };
  Napi::Array runs = Napi::Array::New(info.Env());
  uint32_t count = 0;
  while (block.length > 0 && page < pages && count < most) {
    if (page >= noted && kind != "missing") break;
    if (!has(page)) {
      ++page;
      continue;
    }
    const uint64_t first = page;
    while (page < pages && has(page)) page = page >= noted ? pages : page + 1;
    Napi::Array run = Napi::Array::New(info.Env(), 2);
    run.Set(0u, Number(info.Env(), first));
    run.Set(1u, Number(info.Env(), page));
    runs.Set(count++, run);
  }
  return runs;
}

Napi::Value PageHashes(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  const Block& block = ram.blocks()[BlockOf(ram, info[1])];
  auto hashes = Napi::BigUint64Array::New(info.Env(), block.hashes.size());
  std::copy(block.hashes.begin(), block.hashes.end(), hashes.Data());
  return hashes;
}

Napi::Value RamIssues(const Napi::CallbackInfo& info) {
  Ram& ram = Get<Ram>(info[0]);
  Napi::Env env = info.Env();
  Napi::Array issues = Napi::Array::New(env);
  uint32_t i = 0;
  for (const Issue& issue : ram.TakeIssues()) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("fault", Napi::Number::New(env, static_cast<int>(issue.fault)));
    object.Set("offset", Number(env, issue.offset));
    object.Set("block", issue.block);
    object.Set("page", Napi::BigInt::New(env, issue.page));
    object.Set("value", Napi::BigInt::New(env, issue.value));
    issues.Set(i++, object);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("issues", issues);
  result.Set("lost", Number(env, ram.lost()));
  result.Set("flushes", Number(env, ram.flushes()));
  return result;
}

}  // namespace vioctl::migration
