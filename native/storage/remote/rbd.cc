// librbd does the work on threads of its own, and calls back on one of them.
//
// Its write-back cache is off: a write that is answered is on the disks of the cluster, so that no flush can find out
// later that it was lost, and FUA costs nothing.
#include "storage/remote/rbd.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <utility>

#include "common/error.h"
#include "os/thread.h"
#include "storage/farewell.h"
#include "storage/remote/rbd_api.h"
#include "storage/remote/remote.h"

namespace vioctl::storage {
namespace {

using rbd::Api;

constexpr size_t kNameSize = 128;                    // of identifiers that Ceph gives
constexpr auto kFarewell = std::chrono::seconds(5);  // that closing may take; the rest is done behind our back

// Requests go from the thread that begins them to the messenger, instead of through a thread of librbd, and one thread
// of librados is woken for answers, not two in turns. Whoever begins a request must not wait, so that librados' own
// limits of what is under way are off: servers here have limits of their own. A version that does not know one of these
// does without.
constexpr std::pair<const char*, const char*> kFewerSwitches[] = {
    {"rbd_non_blocking_aio", "false"},
    {"librados_thread_count", "1"},
    {"objecter_inflight_ops", "0"},
    {"objecter_inflight_op_bytes", "0"},
};

int Checked(int result, const char* call, const std::string& what = {}) {
  if (result < 0) throw SysError(-result, call, what);
  return result;
}

// An image with a client of its own: one that was fenced is of no use for anything else.
class Attached {
 public:
  Attached(const Api& api, const RbdOptions& options) : api_(api) {
    try {
      Connect(options);
      Open(options);
    } catch (...) {
      Close();
      throw;
    }
  }
  ~Attached() { Close(); }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

  // Counts a request to the image: it stays open until that has left.
  void Enter() {
    std::lock_guard guard(lock_);
    under_way_++;
  }
  void Leave() {
    std::lock_guard guard(lock_);
    if (--under_way_ == 0) left_.notify_all();
  }
  void AwaitAll() {
    std::unique_lock guard(lock_);
    left_.wait(guard, [this] { return under_way_ == 0; });
  }

  // Of the lock of who has it: whether its client was found to be fenced.
  bool fenced = false;

  rbd::Image image() const { return image_; }
  bool readonly() const { return readonly_; }
  bool lockable() const { return lockable_; }
  uint64_t object_size() const { return object_size_; }
  const std::string& name() const { return name_; }
  uint64_t Size() const {
    uint64_t size = 0;
    Checked(api_.get_size(image_, &size), "rbd_get_size");
    return size;
  }

 private:
  void Connect(const RbdOptions& options) {
    const std::string client = "client." + (options.id.empty() ? "admin" : options.id);
    Checked(api_.rados_create2(&cluster_, "ceph", client.c_str(), 0), "rados_create");
    Checked(api_.rados_conf_read_file(cluster_, options.conf.empty() ? nullptr : options.conf.c_str()),
            "rados_conf_read_file", options.conf.empty() ? "ceph.conf" : options.conf);
    const std::string seconds = std::to_string(std::max(1u, (options.timeout_ms + 999) / 1000));
    std::vector<std::pair<const char*, std::string>> settings = {
        {"client_mount_timeout", seconds}, {"rados_osd_op_timeout", seconds},
        {"rados_mon_op_timeout", seconds}, {"rbd_cache", "false"},
        {"log_to_stderr", "false"},        {"err_to_stderr", "false"},
    };
    if (!options.keyring.empty()) settings.emplace_back("keyring", options.keyring);
    for (const auto& [option, value] : settings)
      Checked(api_.rados_conf_set(cluster_, option, value.c_str()), "rados_conf_set", option);
    for (const auto& [option, value] : kFewerSwitches) api_.rados_conf_set(cluster_, option, value);
    Checked(api_.rados_connect(cluster_), "rados_connect");
    connected_ = true;
  }

  void Open(const RbdOptions& options) {
    Checked(api_.rados_ioctx_create(cluster_, options.pool.c_str(), &pool_), "rados_ioctx_create", options.pool);
    if (!options.space.empty()) api_.rados_ioctx_set_namespace(pool_, options.space.c_str());
    const char* const snapshot = options.snapshot.empty() ? nullptr : options.snapshot.c_str();
    readonly_ = options.readonly || snapshot;
    const auto open = readonly_ ? api_.open_read_only : api_.open;
    Checked(open(pool_, options.image.c_str(), &image_, snapshot), "rbd_open", options.image);
    rbd::Info info{};
    Checked(api_.stat(image_, &info, sizeof info), "rbd_stat");
    object_size_ = info.object_size;
    uint64_t features = 0;
    Checked(api_.get_features(image_, &features), "rbd_get_features");
    lockable_ = !readonly_ && !options.shared && !options.force && (features & rbd::kExclusiveLock);
    char fsid[kNameSize] = {}, id[kNameSize] = {};
    Checked(api_.rados_cluster_fsid(cluster_, fsid, sizeof fsid - 1), "rados_cluster_fsid");
    Checked(api_.get_id(image_, id, sizeof id - 1), "rbd_get_id");
    name_ = std::string(fsid) + "/" + std::to_string(api_.rados_ioctx_get_id(pool_)) + "/" + options.space + "/" + id;
    if (snapshot) name_ += "@" + options.snapshot;
  }

  void Close() {
    if (image_) api_.close(image_);
    if (pool_) api_.rados_ioctx_destroy(pool_);
    if (cluster_ && connected_) api_.rados_shutdown(cluster_);
    image_ = pool_ = cluster_ = nullptr;
  }

  const Api& api_;
  std::mutex lock_;
  std::condition_variable left_;
  uint32_t under_way_ = 0;
  rbd::Cluster cluster_ = nullptr;
  rbd::Pool pool_ = nullptr;
  rbd::Image image_ = nullptr;
  bool connected_ = false, readonly_ = false, lockable_ = false;
  uint64_t object_size_ = 0;
  std::string name_;
};

// Closes an image on a thread of its own, and waits for a while: a cluster that is away keeps librbd waiting.
void Part(std::shared_ptr<Attached> opened) {
  struct Ended {
    std::mutex lock;
    std::condition_variable changed;
    bool done = false;
  };
  const auto ended = std::make_shared<Ended>();
  os::StartThread([ended, kept = std::move(opened)]() mutable {
    kept->AwaitAll();
    kept.reset();
    std::lock_guard guard(ended->lock);
    ended->done = true;
    ended->changed.notify_all();
  }).detach();
  std::unique_lock guard(ended->lock);
  ended->changed.wait_for(guard, kFarewell, [&] { return ended->done; });
}

class Rbd final : public Remote {
 public:
  explicit Rbd(const RbdOptions& options)
      : api_(Api::Get()), options_(options), attached_(std::make_shared<Attached>(api_, options)) {
    try {
      readonly_ = attached_->readonly();
      name_ = attached_->name();
      size_.store(attached_->Size());
      if (options.claim) Claim();
    } catch (...) {
      Part(std::move(attached_));
      throw;
    }
  }
  ~Rbd() override {
    try {
      Part(std::move(attached_));
    } catch (const SysError&) {
      // Without a thread, it is closed here.
    }
  }

  void Begin(Request* request) override {
    std::shared_ptr<Attached> opened;
    bool locked;
    {
      std::lock_guard guard(lock_);
      opened = attached_;
      opened->Enter();
      locked = claimed_;
    }
    // Without the lock, librbd refuses even a flush (EROFS). What was written while it was held is on disks.
    if (request->op == Op::kFlush && opened->lockable() && !locked) {
      opened->Leave();
      return End(request, 0);
    }
    auto* asked = new Asked{this, request, opened.get(), locked};
    rbd::Completion completion = nullptr;
    int result = api_.aio_create_completion(asked, &Rbd::Done, &completion);
    if (result >= 0) result = Issue(*request, opened->image(), completion);
    if (result >= 0) return;
    if (completion) api_.aio_release(completion);
    delete asked;
    const int err = ErrorOf(result, *opened, locked);
    opened->Leave();
    End(request, err);
  }

  bool TakesDurable() const override { return true; }
  bool Loses(int) const override { return false; }  // what was answered is on disks; a fence is latched when it is met
  std::string lasting_name() const override { return name_; }

  uint64_t Refresh() override {
    // librbd watches the header of the image: this asks the cluster only when it has changed.
    size_.store(Now()->Size(), std::memory_order_relaxed);
    return size();
  }

  Geometry geometry() const override {
    Geometry geometry;
    geometry.optimal_io = static_cast<uint32_t>(std::min<uint64_t>(Now()->object_size(), 1u << 30));
    geometry.readonly = readonly_;
    return geometry;
  }

  // A client that was fenced stays so: the image is opened by a new one.
  void Reopen() override {
    auto fresh = std::make_shared<Attached>(api_, options_);
    if (fresh->name() != name_) throw SysError(ESTALE, "rbd_open", options_.image);
    {
      std::lock_guard guard(lock_);
      // What is still under way on the old client is answered late, and says nothing of the new one.
      attached_->fenced = true;
      durability_->Clear();
      std::swap(fresh, attached_);
      claimed_ = false;  // requests are begun with the new client from now on
    }
    Part(std::move(fresh));
    if (used_) Lock();
  }

  void Claim() override {
    Lock();
    used_ = true;
  }

  void Release() override {
    const auto opened = Now();
    used_ = false;
    if (!claimed_.exchange(false) || !opened->lockable()) return;
    Checked(api_.lock_release(opened->image()), "rbd_lock_release", options_.image);
  }

 private:
  struct Asked {
    Rbd* rbd;
    Request* request;
    Attached* opened;
    bool locked;  // its client had the lock when it began
  };

  std::shared_ptr<Attached> Now() const {
    std::lock_guard guard(lock_);
    return attached_;
  }

  void Lock() {
    const auto opened = Now();
    if (claimed_) return;
    const int result = opened->lockable() ? api_.lock_acquire(opened->image(), rbd::kLockExclusive) : 0;
    claimed_ = result >= 0;
    if (result >= 0) return;
    // Another client holds it and does not let go.
    throw SysError(result == -EROFS || result == -EAGAIN ? EBUSY : -result, "rbd_lock_acquire", options_.image);
  }

  int Issue(const Request& request, rbd::Image image, rbd::Completion completion) const {
    switch (request.op) {
      case Op::kRead:
        return api_.aio_readv(image, request.parts, request.count, request.offset, completion);
      case Op::kWrite:
        if (options_.zero != ZeroMode::kUnmap || request.length < kZeroMinimum ||
            !AllZero(request.parts, request.count))
          return api_.aio_writev(image, request.parts, request.count, request.offset, completion);
        return api_.aio_write_zeroes(image, request.offset, request.length, completion, 0, 0);
      case Op::kFlush:
        return api_.aio_flush(image, completion);
      case Op::kDiscard:
        return api_.aio_discard(image, request.offset, request.length, completion);
      default:
        return api_.aio_write_zeroes(image, request.offset, request.length, completion,
                                     request.deallocate ? 0 : rbd::kThick, 0);
    }
  }

  static void Done(rbd::Completion completion, void* user) {
    auto* asked = static_cast<Asked*>(user);
    Rbd* const self = asked->rbd;
    Request* const request = asked->request;
    const ssize_t result = self->api_.aio_get_return_value(completion);
    self->api_.aio_release(completion);
    int err = self->ErrorOf(result, *asked->opened, asked->locked);
    asked->opened->Leave();
    delete asked;
    if (err == 0 && request->op == Op::kRead && static_cast<uint64_t>(result) != request->length) err = EIO;
    End(request, err);
  }

  // What became of a request. A client that is being fenced may lose its lock first, and is told EROFS; a new one is
  // told so until it has the lock. Both are the client's trouble, not the image's.
  int ErrorOf(ssize_t result, Attached& opened, bool locked) {
    const bool unlocked = result == -EROFS && opened.lockable();
    if (result == -ESHUTDOWN || (unlocked && locked)) Fenced(opened);
    if (unlocked) return ESHUTDOWN;
    return result < 0 ? static_cast<int>(-result) : 0;
  }

  // A request has found that its client is: latched and told once for each client.
  void Fenced(Attached& opened) {
    std::lock_guard guard(lock_);
    if (std::exchange(opened.fenced, true)) return;
    durability_->Fail(ESHUTDOWN);
    news_->Tell("fenced", ESHUTDOWN);
  }

  static void End(Request* request, int err) {
    request->result = err;
    request->done(request);  // the last use of this store
  }

  const Api& api_;
  const RbdOptions options_;
  mutable std::mutex lock_;
  std::shared_ptr<Attached> attached_;
  std::string name_;
  std::atomic<bool> claimed_{false};  // its client has the lock, if the image has one
  std::atomic<bool> used_{false};     // from Claim() to Release(): whoever opens it anew locks it again
};

}  // namespace

std::shared_ptr<Store> OpenRbd(const RbdOptions& options) { return MakeSlow<Rbd>(options); }

}  // namespace vioctl::storage
