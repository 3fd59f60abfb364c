#include "storage/remote/nbd_session.h"

#include <poll.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <memory>

#include "common/error.h"
#include "os/clock.h"
#include "os/eventfd.h"

namespace vioctl::storage::nbd {
namespace {

constexpr int kLookMs = 100;
constexpr uint32_t kMostPreferred = 1 << 20,
                   kMostMinimum = 64 << 10;  // what a block size of a server is believed to be

// Sends and receives on one connection as poll(2) says. False: it is lost.
bool Move(const Api& api, Handle* handle, short events) {
  const unsigned wants = api.aio_get_direction(handle);
  if ((events & (POLLIN | POLLHUP | POLLERR)) && (wants & kWantsRead)) return api.aio_notify_read(handle) == 0;
  if ((events & (POLLOUT | POLLHUP | POLLERR)) && (wants & kWantsWrite)) return api.aio_notify_write(handle) == 0;
  return (events & (POLLHUP | POLLERR | POLLNVAL)) == 0;
}

short EventsOf(const Api& api, Handle* handle) {
  const unsigned wants = api.aio_get_direction(handle);
  return static_cast<short>((wants & kWantsRead ? POLLIN : 0) | (wants & kWantsWrite ? POLLOUT : 0));
}

SysError Failure(const Api& api) {
  const int err = api.get_errno();
  return {err > 0 ? err : EPROTO, "connect"};
}

using Owner = std::unique_ptr<Handle, void (*)(Handle*)>;

Owner Create(const Api& api) {
  Owner handle(api.create(), api.close);
  if (!handle) throw SysError(ENOMEM, "nbd_create");
  return handle;
}

void Start(const Api& api, Handle* handle, const std::string& uri) {
  if (api.set_uri_allow_transports(handle, kAllowTcp | kAllowUnix) < 0 ||
      api.set_uri_allow_local_file(handle, true) < 0 || api.aio_connect_uri(handle, uri.c_str()) < 0)
    throw Failure(api);
}

bool Over(const Api& api, Handle* handle) { return api.aio_is_dead(handle) > 0 || api.aio_is_closed(handle) > 0; }

// Moves what there is until the connection is so far, or over.
void Await(const Api& api, Handle* handle, uint64_t deadline, const GoesOn& goes_on,
           const std::function<bool()>& so_far) {
  while (!so_far()) {
    if (Over(api, handle)) throw Failure(api);
    if (!goes_on()) throw SysError(ECANCELED, "connect");
    if (os::NowNs() >= deadline) throw SysError(ETIMEDOUT, "connect");
    pollfd polled{api.aio_get_fd(handle), EventsOf(api, handle), 0};
    if (polled.fd < 0) throw Failure(api);
    if (::poll(&polled, 1, kLookMs) > 0 && !Move(api, handle, polled.revents)) throw Failure(api);
  }
}

// What a server answers to a question of the negotiation.
struct Answer {
  bool come = false;
  int err = 0;
};

int Answered(void* user, int* error) {
  *static_cast<Answer*>(user) = {true, *error};
  return 1;
}

}  // namespace

uint64_t AskSize(const Api& api, const std::string& uri, uint64_t deadline, const GoesOn& goes_on) {
  Answer answer;  // outlives the handle, which may still tell it
  const Owner owner = Create(api);
  Handle* const handle = owner.get();
  if (api.set_opt_mode(handle, true) < 0) throw Failure(api);
  Start(api, handle, uri);
  const auto negotiates = [&] { return api.aio_is_negotiating(handle) > 0; };
  // A server of the old style asks nothing back: it has told the size, and waits for requests.
  Await(api, handle, deadline, goes_on, [&] { return negotiates() || api.aio_is_ready(handle) > 0; });
  if (negotiates()) {
    if (api.aio_opt_info(handle, {Answered, &answer, nullptr}) < 0) throw Failure(api);
    Await(api, handle, deadline, goes_on, [&] { return answer.come; });
    if (answer.err != 0) throw SysError(answer.err, "connect");
  }
  const int64_t size = api.get_size(handle);
  if (size < 0) throw SysError(EPROTO, "connect");
  // A server that is told of the end has nothing to complain about. That it hears of it is its own matter.
  try {
    if ((negotiates() ? api.aio_opt_abort(handle) : api.aio_disconnect(handle, 0)) >= 0)
      Await(api, handle, deadline, goes_on, [&] { return Over(api, handle); });
  } catch (const SysError&) {
  }
  return static_cast<uint64_t>(size);
}

Session::Session(const Api& api, const std::string& uri, uint64_t deadline, const GoesOn& goes_on) : api_(api) {
  try {
    Connect(uri, deadline, goes_on);
    Learn(handles_[0]);
    Facts first = facts_;
    while (first.several && handles_.size() < kConnections) {
      try {
        Connect(uri, deadline, goes_on);
      } catch (const SysError&) {
        break;  // a server may limit them
      }
      Learn(handles_.back());
      if (facts_.readonly != first.readonly || facts_.flush != first.flush || facts_.fua != first.fua)
        throw SysError(EPROTO, "connect");
      // It has just got another size: all of them have the smallest one, and whoever asks is told the new one.
      first.size = std::min(first.size, facts_.size);
    }
    facts_ = first;
  } catch (...) {
    for (Handle* handle : handles_) api_.close(handle);
    throw;
  }
}

Session::~Session() {
  for (Handle* handle : handles_) {
    if (api_.aio_is_ready(handle) > 0) api_.aio_disconnect(handle, 0);
    api_.close(handle);
  }
}

void Session::Connect(const std::string& uri, uint64_t deadline, const GoesOn& goes_on) {
  Owner owner = Create(api_);
  Handle* const handle = owner.get();
  if (api_.add_meta_context(handle, kAllocation) < 0) throw Failure(api_);
  Start(api_, handle, uri);
  Await(api_, handle, deadline, goes_on, [&] { return api_.aio_is_ready(handle) > 0; });
  handles_.push_back(handle);
  (void)owner.release();
}

void Session::Learn(Handle* handle) {
  facts_ = {};
  const int64_t size = api_.get_size(handle);
  if (size < 0) throw SysError(EPROTO, "connect");
  facts_.size = static_cast<uint64_t>(size);
  facts_.readonly = api_.is_read_only(handle) > 0;
  facts_.rotational = api_.is_rotational(handle) > 0;
  facts_.flush = api_.can_flush(handle) > 0;
  facts_.fua = api_.can_fua(handle) > 0;
  facts_.trim = api_.can_trim(handle) > 0;
  facts_.zero = api_.can_zero(handle) > 0;
  facts_.several = api_.can_multi_conn(handle) > 0;
  facts_.extents = api_.can_meta_context(handle, kAllocation) > 0;
  const auto block = [&](int which, uint32_t fallback, uint32_t most) {
    const int64_t value = api_.get_block_size(handle, which);
    return value > 0 ? static_cast<uint32_t>(std::min<int64_t>(value, most)) : fallback;
  };
  facts_.minimum = block(kMinimum, 1, UINT32_MAX);
  facts_.preferred = block(kPreferred, 4096, kMostPreferred);
  facts_.maximum = block(kMaximum, 32 << 20, 32 << 20);
  if (!std::has_single_bit(facts_.minimum) || facts_.minimum > kMostMinimum || facts_.maximum < facts_.minimum)
    throw SysError(EPROTO, "connect");
}

bool Session::Turn(int wake, int ms) {
  pollfd polled[kConnections + 1];
  const size_t count = handles_.size();
  for (Handle* handle : handles_)
    if (Over(api_, handle)) return false;
  for (size_t i = 0; i < count; i++) polled[i] = {api_.aio_get_fd(handles_[i]), EventsOf(api_, handles_[i]), 0};
  polled[count] = {wake, POLLIN, 0};
  if (::poll(polled, count + 1, ms) <= 0) return true;
  if (polled[count].revents & POLLIN) os::TakeEventfd(wake);
  for (size_t i = 0; i < count; i++)
    if (polled[i].revents != 0 && !Move(api_, handles_[i], polled[i].revents)) return false;
  return true;
}

}  // namespace vioctl::storage::nbd
