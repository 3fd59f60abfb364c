// The lock of an image (native/storage/remote/rbd.cc) in moments that a cluster does not bring about on demand. Has its own
// librados and librbd. Prints "ok", or each thing that is wrong.
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <string>
#include <thread>

#include "common/error.h"
#include "storage/remote/library.h"
#include "storage/remote/rbd.h"
#include "storage/remote/rbd_api.h"

using vioctl::SysError;
using vioctl::storage::OpenRbd;
using vioctl::storage::RbdOptions;
using vioctl::storage::Store;
namespace rbd = vioctl::storage::rbd;

namespace {

int wrong = 0;

void Equal(int found, int expected, const char* what) {
  if (found == expected) return;
  wrong++;
  printf("wrong: %s: %d (%s), expected %d\n", what, found, strerror(found), expected);
}

constexpr uint64_t kSize = 1 << 20;
char other;  // a client of somebody else
std::atomic<const void*> holder{nullptr};
std::atomic<int> images{0};
std::function<void()> closes = [] {}, closed = [] {};  // before and after an image gives up what it has
bool keep = false;                                     // answers wait for Answer()

struct Answered {
  void* user;
  void (*done)(void*, void*);
  ssize_t result = 0;
};
std::atomic<Answered*> kept{nullptr};

void Answer(Answered* one) { one->done(one, one->user); }

// As librbd: a client takes the lock by itself if nobody has it; one who was asked to lock does not let go.
int Ask(rbd::Image image, ssize_t result, rbd::Completion completion) {
  auto* one = static_cast<Answered*>(completion);
  const void* const whose = holder;
  one->result = whose && whose != image ? -EROFS : result;
  if (keep)
    kept = one;
  else
    Answer(one);
  return 0;
}

int Acquire(rbd::Image image, int) {
  const void* nobody = nullptr;
  return holder.compare_exchange_strong(nobody, image) || nobody == image ? 0 : -EROFS;
}

int Release(rbd::Image image) {
  const void* its = image;
  return holder.compare_exchange_strong(its, nullptr) ? 0 : -EINVAL;
}

int Open(rbd::Pool, const char*, rbd::Image* image, const char*) {
  images++;
  *image = new char;
  return 0;
}

int Close(rbd::Image image) {
  closes();
  Release(image);
  closed();
  delete static_cast<char*>(image);
  images--;
  return 0;
}

#define F(name, ...) {name, reinterpret_cast<void*>(+(__VA_ARGS__))}
const std::map<std::string, void*> functions = {
    F("rados_create2", [](void**, const char*, const char*, uint64_t) { return 0; }),
    F("rados_conf_read_file", [](void*, const char*) { return 0; }),
    F("rados_conf_set", [](void*, const char*, const char*) { return 0; }),
    F("rados_connect", [](void*) { return 0; }),
    F("rados_shutdown", [](void*) {}),
    F("rados_cluster_fsid", [](void*, char*, size_t) { return 0; }),
    F("rados_ioctx_create", [](void*, const char*, void**) { return 0; }),
    F("rados_ioctx_destroy", [](void*) {}),
    F("rados_ioctx_set_namespace", [](void*, const char*) {}),
    F("rados_ioctx_get_id", [](void*) { return int64_t{1}; }),
    F("rbd_open", Open),
    F("rbd_open_read_only", [](void*, const char*, void**, const char*) { return -ENOENT; }),
    F("rbd_close", Close),
    F("rbd_stat", [](void*, rbd::Info*, size_t) { return 0; }),
    F("rbd_get_size", [](void*, uint64_t* size) { return *size = kSize, 0; }),
    F("rbd_get_id", [](void*, char*, size_t) { return 0; }),
    F("rbd_get_features", [](void*, uint64_t* features) { return *features = rbd::kExclusiveLock, 0; }),
    F("rbd_lock_acquire", Acquire),
    F("rbd_lock_release", Release),
    F("rbd_aio_create_completion",
      [](void* user, void (*done)(void*, void*), void** made) { return *made = new Answered{user, done}, 0; }),
    F("rbd_aio_release", [](void* completion) { delete static_cast<Answered*>(completion); }),
    F("rbd_aio_get_return_value", [](void* completion) { return static_cast<Answered*>(completion)->result; }),
    F("rbd_aio_readv",
      [](void* image, const iovec* parts, int count, uint64_t, void* completion) {
        return Ask(image, static_cast<ssize_t>(vioctl::storage::BytesOf(parts, count)), completion);
      }),
    F("rbd_aio_writev",
      [](void* image, const iovec*, int, uint64_t, void* completion) { return Ask(image, 0, completion); }),
    F("rbd_aio_flush", [](void* image, void* completion) { return Ask(image, 0, completion); }),
    F("rbd_aio_discard", [](void* image, uint64_t, uint64_t, void* completion) { return Ask(image, 0, completion); }),
    F("rbd_aio_write_zeroes",
      [](void* image, uint64_t, size_t, void* completion, int, int) { return Ask(image, 0, completion); }),
};

std::shared_ptr<Store> Serve(bool claim) {
  RbdOptions options;
  options.pool = "rbd";
  options.image = "disk";
  options.claim = claim;
  return OpenRbd(options);
}

int Write(Store& store) {
  char block[512] = {1};
  return store.Write(block, sizeof block, 0);
}

// 0 or an errno.
int Try(const std::function<void()>& what) {
  try {
    what();
    return 0;
  } catch (const SysError& error) {
    return error.err();
  }
}

void LostLock() {
  const auto store = Serve(true);
  Equal(Write(*store), 0, "a write under the lock");
  holder = &other;
  Equal(Write(*store), ESHUTDOWN, "a write whose lock was taken away");
  Equal(store->sync_error(), ESHUTDOWN, "which is latched");
  holder = nullptr;
  store->Reopen();
  Equal(store->sync_error(), 0, "until the image is opened anew");
}

// Hosts go on while the image is opened anew: the client before still has the lock then.
void WritesWhileReopening() {
  const auto store = Serve(true);
  int written = 0;
  closes = [&] { written = Write(*store); };
  store->Reopen();
  closes = [] {};
  Equal(written, ESHUTDOWN, "a write before the new client has the lock");
  Equal(store->sync_error(), 0, "says nothing of the new client");
  Equal(Write(*store), 0, "a write of the new client");
}

// Answered when the lock is there, but asked before.
void LateAnswer() {
  const auto store = Serve(false);
  holder = &other;
  keep = true;
  auto written = std::async(std::launch::async, [&] { return Write(*store); });
  while (!kept) std::this_thread::yield();
  keep = false;
  holder = nullptr;
  store->Claim();
  Answer(kept);
  Equal(written.get(), ESHUTDOWN, "a write from before the lock");
  Equal(store->sync_error(), 0, "is no sign that the lock was lost");
}

// Another client was faster than the new one: the next try locks the image.
void Overtaken() {
  const auto store = Serve(true);
  closed = [] { holder = &other; };
  Equal(Try([&] { store->Reopen(); }), EBUSY, "an image that another client has locked");
  closed = [] {};
  holder = nullptr;
  Equal(Try([&] { store->Reopen(); }), 0, "opened anew");
  Equal(holder.load() != nullptr, true, "and locked");
  Equal(Try([&] { store->Release(); }), 0, "given back");
  Equal(holder.load() != nullptr, false, "to others");
}

}  // namespace

namespace vioctl::storage {
Library::Library(const char*) : handle_(nullptr) {}
void* Library::Find(const char* symbol) const { return functions.at(symbol); }
}  // namespace vioctl::storage

int main() {
  for (const auto& test : {LostLock, WritesWhileReopening, LateAnswer, Overtaken}) {
    test();
    holder = nullptr;
    while (images > 0) std::this_thread::yield();  // a source closes behind the back of who had it
  }
  if (wrong == 0) printf("ok\n");
}
