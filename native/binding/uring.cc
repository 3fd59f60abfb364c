#include "binding/uring.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>

#include "binding/core/async.h"
#include "binding/core/handle.h"
#include "binding/core/values.h"
#include "binding/core/watch.h"
#include "common/error.h"
#include "os/eventfd.h"
#include "uring/pour.h"
#include "uring/read_file.h"
#include "uring/ring.h"
#include "uring/shared.h"

namespace vioctl::uring::js {

struct JsRing;

}  // namespace vioctl::uring::js

namespace vioctl {

template <>
inline constexpr const char* kHandleName<uring::js::JsRing> = "ring";

}  // namespace vioctl

namespace vioctl::uring::js {
namespace {

// The rings that are open. process.exit() and uncaught exceptions run no finalizers in the main thread, and a closed
// ring lets its files go only some 30 ms later: they are unregistered at exit(3). Never destroyed: workers may outlive
// it.
struct OpenRings {
  static OpenRings& All() {
    static OpenRings* const all = [] {
      std::atexit([] {
        const std::lock_guard guard(All().lock);
        for (Ring* ring : All().rings) ring->UnregisterFiles();
      });
      return new OpenRings;
    }();
    return *all;
  }
  void Add(Ring* ring) {
    const std::lock_guard guard(lock);
    rings.insert(ring);
  }
  void Remove(Ring* ring) {
    const std::lock_guard guard(lock);
    rings.erase(ring);
  }
  std::mutex lock;
  std::set<Ring*> rings;
};

}  // namespace

// The ring of one JavaScript environment: SQEs are composed by JavaScript in a shared array, a batch crosses in one
// call, and the completions that are there come back in another shared array.
struct JsRing : std::enable_shared_from_this<JsRing> {
  JsRing(Napi::Env env, const RingOptions& options, uint32_t batch) : env(env), ring(options), reads(ring) {
    sqe_count = std::min(batch, ring.sq_entries());
    cqe_count = std::min(2 * batch, ring.cq_entries());
    const auto make = [&](size_t size, Napi::Reference<Napi::ArrayBuffer>& ref) {
      Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, size);
      memset(buffer.Data(), 0, size);
      ref = Napi::Persistent(buffer);
      return buffer.Data();
    };
    sqes = static_cast<io_uring_sqe*>(make(sqe_count * sizeof(io_uring_sqe), sqes_ref));
    cqes = static_cast<io_uring_cqe*>(make(cqe_count * sizeof(io_uring_cqe), cqes_ref));
    status = static_cast<int32_t*>(make(kStatusWords * sizeof(int32_t), status_ref));
    OpenRings::All().Add(&ring);
  }
  ~JsRing() {
    watch.reset();
    callback.Reset();
    Cancel();
    OpenRings::All().Remove(&ring);
    ring.UnregisterFiles();
  }

  // The environment ends with requests under way: their memory is JavaScript's, so the kernel must be done with it.
  void Cancel() {
    for (int idle = 0; in_flight() > 0 && idle < 20;) {
      const uint64_t before = in_flight();
      io_uring_sync_cancel_reg cancel{};
      cancel.fd = -1;
      cancel.flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
      cancel.timeout = {0, 100'000'000};
      ring.Register(IORING_REGISTER_SYNC_CANCEL, &cancel, 1);
      const int result = ring.SubmitAndWait(1, 100'000'000);
      if (result < 0 && result != -ETIME && result != -EINTR && result != -EBUSY && result != -EAGAIN) break;
      Drain();
      if (in_flight() >= before) idle++;  // a small queue brings many completions back in many rounds
    }
  }

  // Takes completions to the shared array from entry `at` on, until it is full. Returns the entries used in all.
  uint32_t Drain(uint32_t at = 0) {
    while (at < cqe_count && ring.Reap(
                                 [&](const io_uring_cqe& cqe) {
                                   // Notifications (tags) have the top bit set and answer no request.
                                   if (!(cqe.flags & IORING_CQE_F_MORE) && !(cqe.user_data >> 63)) ended++;
                                   if (!FileReads::Owns(cqe))
                                     memcpy(&cqes[at++], &cqe, sizeof cqe);
                                   else if (reads.Advance(cqe, &cqes[at]))
                                     at++;
                                 },
                                 1) > 0) {
    }
    return at;
  }

  // Requests that the ring was given and that have not ended, whether the kernel has them already or not.
  uint64_t in_flight() const { return ring.issued() - ended; }

  // Moves entries of the shared array to the ring, whole chains only: a chain ends where a submission ends. Stops at
  // one that does not fit.
  uint32_t Copy(uint32_t from, uint32_t count) {
    while (from < count) {
      uint32_t end = from, need = 0;
      do {
        need += sqes[end].opcode == kOpReadWhole ? reads.start_entries() : 1;
      } while (sqes[end++].flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK) && end < count);
      if (need > ring.Space()) break;
      for (; from < end; from++) {
        if (sqes[from].opcode == kOpReadWhole)
          reads.Start(sqes[from]);
        else
          memcpy(ring.Next(), &sqes[from], sizeof *sqes);
      }
    }
    return from;
  }

  // Whether the chain at `from` does not even fit an empty queue.
  bool Oversized(uint32_t from, uint32_t count) const {
    uint32_t need = 0;
    do need += sqes[from].opcode == kOpReadWhole ? reads.start_entries() : 1;
    while (sqes[from++].flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK) && from < count);
    return need > ring.sq_entries();
  }

  // Whether io_uring_enter(2) will not take entries later either: seccomp, another thread, a closed descriptor.
  static bool Refused(int result) {
    return result < 0 && result != -EAGAIN && result != -EBUSY && result != -EINTR && result != -ETIME &&
           result != -ENOMEM && result != -EBADFD;
  }

  // Ends what the kernel refused with that error, as completions; returns the entries used in all. `taken` moves on.
  uint32_t Refuse(int error, uint32_t& taken, uint32_t count, uint32_t at) {
    const auto answer = [&](const io_uring_sqe& sqe) {
      const io_uring_cqe cqe{sqe.user_data, error, 0};
      if (!FileReads::Owns(cqe))
        memcpy(&cqes[at++], &cqe, sizeof cqe);
      else if (reads.Advance(cqe, &cqes[at]))
        at++;
    };
    while (at < cqe_count && ring.Withdraw(
                                 [&](const io_uring_sqe& sqe) {
                                   ended++;
                                   answer(sqe);
                                 },
                                 1) > 0) {
    }
    for (; at < cqe_count && taken < count; taken++) answer(sqes[taken]);
    return at;
  }

  // Submits `count` entries of the shared array, waits for `want` completions, and reaps. While this runs the eventfd
  // is silent, so what completes at once never wakes the event loop.
  uint32_t Submit(uint32_t count, uint32_t want, int64_t timeout_ns) {
    if (watch) ring.EventfdEnabled(false);
    status[kTaken] = status[kError] = status[kAgain] = 0;
    uint32_t taken = 0, completions = 0;
    bool refused = false;
    for (;;) {
      reads.Continue();
      taken = Copy(taken, count);
      const uint32_t ready = ring.Ready() + completions;
      const uint32_t wait = taken == count && want > ready ? want - completions : 0;
      const int result = ring.SubmitAndWait(wait, timeout_ns);
      completions = Drain(completions);
      if (result < 0 && (result != -EINTR || wait > 0)) {
        if (result != -EINTR) status[kError] = result;
        if (!Refused(result) || ring.polls()) break;
        refused = true;
        const uint32_t before = completions;
        completions = Refuse(result, taken, count, completions);
        if (completions > before) status[kError] = 0;
        break;
      }
      if (completions == cqe_count) break;
      // The kernel's own thread takes entries when it likes (SQPOLL): only what does not fit waits for it.
      if (taken == count && !reads.waiting() && (ring.polls() || ring.Pending() == 0)) break;
      if (ring.Pending() == 0 && ring.Space() == ring.sq_entries() && taken < count && Oversized(taken, count)) {
        status[kError] = -EOVERFLOW;
        break;
      }
      if (ring.polls() && ring.Space() == 0)
        if (const int waited = ring.WaitForSpace(); waited < 0 && waited != -EINTR) {
          status[kError] = waited;
          break;
        }
    }
    status[kTaken] = static_cast<int32_t>(taken);
    status[kEnters] = static_cast<int32_t>(ring.enters());
    status[kOverflows] = static_cast<int32_t>(ring.overflows());
    if (watch) {
      ring.EventfdEnabled(true);
      watch->Ref(in_flight() > 0 || reads.waiting());
      // What came between the reaping and the arming made no signal, and what the kernel did not take now makes none
      // either: JavaScript sees to it in the next turn of the loop. That is cheaper than a signal to oneself: two
      // system calls, and the loop would be woken once more.
      const bool left = reads.waiting() || (!ring.polls() && ring.Pending() > 0);
      if (completions < cqe_count && (ring.Ready() || ring.NeedsEnter() || left)) {
        ring.EventfdEnabled(false);
        status[kAgain] = 1;
      }
    }
    status[kMore] =
        (completions == cqe_count && (taken < count || ring.Ready() || ring.NeedsEnter() || reads.waiting())) ||
        (refused && (taken < count || ring.Pending() > 0 || reads.waiting()));
    // Entries that a failed submission left in the ring count as well: they go with the next.
    status[kInFlight] = static_cast<int32_t>(in_flight() + reads.waiting());
    return completions;
  }

  Napi::Env env;
  Fd eventfd;  // closed after the ring
  Ring ring;
  FileReads reads;
  std::unique_ptr<vioctl::Watch> watch;
  Napi::FunctionReference callback;
  std::unique_ptr<Napi::AsyncContext> context;
  Napi::Reference<Napi::ArrayBuffer> sqes_ref, cqes_ref, status_ref;
  io_uring_sqe* sqes;
  io_uring_cqe* cqes;
  int32_t* status;
  uint32_t sqe_count, cqe_count;
  uint64_t ended = 0;  // of the requests that the ring was given
};

namespace {

JsRing& RingOf(const Napi::CallbackInfo& info) { return Get<JsRing>(info[0]); }

uint32_t Option(const Napi::Object& options, const char* name, uint32_t otherwise) {
  const Napi::Value value = Field(options, name, Maybe(Kind::kUint32));
  return value.IsNumber() ? U32(value) : otherwise;
}

const void* DataOf(const Napi::Value& value) { return value.IsTypedArray() ? Bytes(value).data() : nullptr; }

}  // namespace

Napi::Value Open(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  RingOptions options;
  options.entries = Option(given, "entries", options.entries);
  options.cq_entries = Option(given, "cqEntries", 0);
  options.prefer = Option(given, "prefer", options.prefer);
  options.require = Option(given, "require", 0);
  options.sq_thread_idle = Option(given, "idle", 0);
  options.registered_ring_fd = Option(given, "registered", 1) != 0;
  const uint32_t batch = std::max(1U, Option(given, "batch", options.entries));
  return NewHandle(info.Env(), std::make_shared<JsRing>(info.Env(), options, batch));
}

Napi::Value Info(const Napi::CallbackInfo& info) {
  JsRing& js = RingOf(info);
  Napi::Object result = Napi::Object::New(info.Env());
  const auto number = [&](const char* name, double value) { result.Set(name, Napi::Number::New(info.Env(), value)); };
  number("fd", js.ring.fd());
  number("sqEntries", js.ring.sq_entries());
  number("cqEntries", js.ring.cq_entries());
  number("flags", js.ring.flags());
  number("features", js.ring.features());
  result.Set("registered", Napi::Boolean::New(info.Env(), js.ring.registered()));
  result.Set("params", Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(&js.ring.params()),
                                                   sizeof(io_uring_params)));
  result.Set("sqes", js.sqes_ref.Value());
  result.Set("cqes", js.cqes_ref.Value());
  result.Set("status", js.status_ref.Value());
  return result;
}

Napi::Value Submit(const Napi::CallbackInfo& info) {
  JsRing& js = RingOf(info);
  const double timeout = info[3].IsNumber() ? info[3].As<Napi::Number>().DoubleValue() : -1;
  const uint32_t count = std::min(U32(info[1]), js.sqe_count);
  return Napi::Number::New(info.Env(),
                           js.Submit(count, U32(info[2]), timeout < 0 ? -1 : static_cast<int64_t>(timeout * 1e6)));
}

Napi::Value Watch(const Napi::CallbackInfo& info) {
  JsRing& js = RingOf(info);
  if (js.watch) throw SysError(EBUSY, "io_uring", "the ring is watched already");
  js.eventfd = os::NewEventfd();
  if (int result = js.ring.RegisterEventfd(js.eventfd.get()); result < 0)
    throw SysError(-result, "io_uring_register", "eventfd");
  js.callback = Napi::Persistent(info[1].As<Napi::Function>());
  js.context = std::make_unique<Napi::AsyncContext>(info.Env(), "vioctl:uring");
  js.watch = std::make_unique<vioctl::Watch>(info.Env(), js.eventfd.get(), [weak = js.weak_from_this()] {
    const auto self = weak.lock();  // its callback may close it
    if (!self) return;
    os::TakeEventfd(self->eventfd.get());
    const uint32_t count = self->Submit(0, 0, -1);
    self->callback.MakeCallback(self->env.Global(), {Napi::Number::New(self->env, count)}, *self->context);
  });
  js.watch->Ref(js.in_flight() > 0 || js.reads.waiting());
  return info.Env().Undefined();
}

Napi::Value Register(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), RingOf(info).ring.Register(U32(info[1]), DataOf(info[2]), U32(info[3])));
}

Napi::Value Enable(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), RingOf(info).ring.Enable()); }

Napi::Value Close(const Napi::CallbackInfo& info) {
  if (const auto ring = TakeFrom<JsRing>(info[0])) ring->watch.reset();
  return info.Env().Undefined();
}

Napi::Value TrySetup(const Napi::CallbackInfo& info) {
  io_uring_params params{};
  params.cq_entries = U32(info[1]);
  params.flags = U32(info[2]);
  Fd fd(Setup(U32(info[0]), &params));
  return Napi::Number::New(info.Env(), fd.valid() ? static_cast<double>(params.features) : fd.get());
}

Napi::Value RegisterRaw(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), uring::Register(info[0].As<Napi::Number>().Int32Value(), U32(info[1]),
                                                       DataOf(info[2]), U32(info[3])));
}

Napi::Value AddressOf(const Napi::CallbackInfo& info) {
  // A view, because Node-API has no way into a SharedArrayBuffer itself.
  const auto address = reinterpret_cast<uintptr_t>(Bytes(info[0]).data());
  return Number(info.Env(), address);  // user addresses are below 2^53
}

Napi::Value CheckFds(const Napi::CallbackInfo& info) {
  const auto fds = info[0].As<Napi::Int32Array>();
  auto result = Napi::Uint8Array::New(info.Env(), fds.ElementLength());
  for (size_t i = 0; i < fds.ElementLength(); i++) {
    const int fd = fds[i];
    FdFault fault = FdFault::kNone;
    const int flags = fd < 0 ? 0 : os::TryStatusFlags(fd);
    if (fd < 0) {
      fault = FdFault::kNegative;
    } else if (flags < 0) {
      fault = FdFault::kClosed;
    } else if (flags & O_PATH) {
      fault = FdFault::kPath;
    } else {
      char path[32], target[32];
      snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
      const ssize_t size = ::readlink(path, target, sizeof target);
      constexpr char kRing[] = "anon_inode:[io_uring]";
      if (size == sizeof kRing - 1 && memcmp(target, kRing, sizeof kRing - 1) == 0) fault = FdFault::kRing;
    }
    result[i] = static_cast<uint8_t>(fault);
  }
  return result;
}

Napi::Value SyncFs(const Napi::CallbackInfo& info) {
  os::SyncFileSystem(info[0].As<Napi::Number>());
  return info.Env().Undefined();
}

Napi::Value JsPour(const Napi::CallbackInfo& info) {
  const auto moved = std::make_shared<uint64_t>(0);
  const int in = info[0].As<Napi::Number>(), out = info[1].As<Napi::Number>();
  return RunAsync(
      info.Env(), [=, offset = U64(info[2]), limit = U64(info[3])] { *moved = Pour(in, out, offset, limit); },
      [moved](Napi::Env env) { return Number(env, *moved); });
}

}  // namespace vioctl::uring::js
