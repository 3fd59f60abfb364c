// An export of an NBD server as a store. Its engine answers.
#include "storage/remote/nbd.h"

#include <algorithm>

#include "os/thread.h"
#include "storage/farewell.h"
#include "storage/remote/nbd_engine.h"
#include "storage/remote/remote.h"

namespace vioctl::storage {
namespace {

class Nbd final : public Remote {
 public:
  explicit Nbd(const NbdOptions& options) : options_(options) {
    readonly_ = options.readonly;
    engine_ = std::make_shared<nbd::Engine>(
        options, [news = news_](const char* what, int err) { news->Tell(what, err); }, durability_);
    os::StartThread([engine = engine_] { engine->Run(); }).detach();
    try {
      facts_ = engine_->Opened();
    } catch (...) {
      engine_->Wait();
      throw;
    }
    size_.store(facts_.size);
  }
  ~Nbd() override {
    engine_->Stop();
    engine_->Wait();
  }

  void Begin(Request* request) override { engine_->Begin(request); }
  bool TakesDurable() const override { return engine_->fua(); }
  bool Loses(int err) const override { return err != 0 && !Away(err); }
  std::string lasting_name() const override { return options_.name.empty() ? options_.uri : options_.name; }
  uint64_t Refresh() override {
    // What stands behind a socket of our own has the size that it was opened with.
    if (options_.name.empty()) engine_->LookAtSize();
    size_.store(engine_->size(), std::memory_order_relaxed);
    return size();
  }
  void Reopen() override {
    // Nothing of a shared export is written again: it has to be durable before its connections end.
    if (options_.shared && Syncs() && sync_error() == 0)
      if (const int err = Flush(); Loses(err)) throw SysError(err, "flush");
    engine_->Reopen();
  }

  Geometry geometry() const override {
    Geometry geometry;
    geometry.logical = std::max(512u, facts_.minimum);
    geometry.physical = std::max(geometry.logical, std::min(facts_.preferred, 65536u));
    geometry.optimal_io = facts_.preferred;
    geometry.rotational = facts_.rotational;
    geometry.readonly = facts_.readonly;
    return geometry;
  }

 private:
  const NbdOptions options_;
  std::shared_ptr<nbd::Engine> engine_;
  nbd::Facts facts_;
};

}  // namespace

std::shared_ptr<Store> OpenNbd(const NbdOptions& options) { return MakeSlow<Nbd>(options); }

}  // namespace vioctl::storage
