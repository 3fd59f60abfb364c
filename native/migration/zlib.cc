#include "migration/zlib.h"

#include <dlfcn.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "common/error.h"

namespace vioctl::migration {

// z_stream of zlib 1.x: its layout is part of zlib's ABI and is checked by inflateInit2_ (version and size arguments).
struct ZlibStream {
  const uint8_t* next_in;
  unsigned avail_in;
  unsigned long total_in;
  uint8_t* next_out;
  unsigned avail_out;
  unsigned long total_out;
  const char* msg;
  void* state;
  void* (*zalloc)(void*, unsigned, unsigned);
  void (*zfree)(void*, void*);
  void* opaque;
  int data_type;
  unsigned long adler;
  unsigned long reserved;
};

namespace {

constexpr int kOk = 0, kStreamEnd = 1, kBufError = -5;

struct Library {
  int (*init)(ZlibStream*, int, const char*, int);
  int (*run)(ZlibStream*, int);
  int (*end)(ZlibStream*);
};

const Library& Zlib() {
  static const Library library = [] {
    void* from = RTLD_DEFAULT;
    if (!dlsym(from, "inflate")) from = dlopen("libz.so.1", RTLD_NOW | RTLD_LOCAL);
    Library found{};
    if (from || dlsym(RTLD_DEFAULT, "inflate")) {
      found.init = reinterpret_cast<decltype(found.init)>(dlsym(from, "inflateInit2_"));
      found.run = reinterpret_cast<decltype(found.run)>(dlsym(from, "inflate"));
      found.end = reinterpret_cast<decltype(found.end)>(dlsym(from, "inflateEnd"));
    }
    return found;
  }();
  if (!library.init || !library.run || !library.end) throw SysError(ENOSYS, "inflate", "no zlib in this process");
  return library;
}

}  // namespace

struct Inflater::State {
  ZlibStream stream{};
  bool open = false;
};

Inflater::Inflater() : state_(new State) {}
Inflater::~Inflater() {
  if (state_->open) Zlib().end(&state_->stream);
}

void Inflater::Start(Format format) {
  const Library& zlib = Zlib();
  if (state_->open) zlib.end(&state_->stream);
  state_->open = false;
  state_->stream = ZlibStream{};
  if (zlib.init(&state_->stream, format, "1.2.11", sizeof(ZlibStream)) != kOk) throw SysError(ENOMEM, "inflateInit2");
  state_->open = true;
}

Inflater::Result Inflater::Run(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size) {
  ZlibStream& stream = state_->stream;
  stream.next_in = in;
  stream.avail_in = static_cast<unsigned>(in_size);
  stream.next_out = out;
  stream.avail_out = static_cast<unsigned>(out_size);
  const int code = Zlib().run(&stream, 0);
  Result result{kMore, in_size - stream.avail_in, out_size - stream.avail_out};
  if (code == kStreamEnd)
    result.status = kDone;
  else if (code != kOk && code != kBufError)
    result.status = kBad;
  return result;
}

}  // namespace vioctl::migration
