#include <fcntl.h>
#include <unistd.h>

#include "uring/bulk_threads.h"

namespace vioctl::uring {

int32_t SyncFile(const char* path, bool data) {
  Fd fd = os::TryOpen(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
  if (!fd.valid() && errno == EACCES) {  // fsync(2) needs no right to read
    fd = os::TryOpen(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
    if (!fd.valid() && errno == EISDIR) errno = EACCES;
  }
  if (!fd.valid()) return -errno;
  int result;
  do result = data ? ::fdatasync(fd.get()) : ::fsync(fd.get());
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : 0;
}

class PlainThread final : public BulkThread {
 public:
  explicit PlainThread(Bulk& bulk) : bulk_(bulk) {}
  void Start() override {
    thread_ = os::StartThread([this] {
      ::pthread_setname_np(::pthread_self(), "plain-bulk");
      std::vector<BulkResult> results;
      for (Bulk::Name name; bulk_.Await(name);) {
        BulkResult& result = results.emplace_back();
        result.number = name.number;
        result.error = SyncFile(name.path, bulk_.options_.work == BulkWork::kDataSync);
        bulk_.Deliver(results);
      }
    });
  }
  void Wake(bool) override { bulk_.more_.notify_one(); }  // each thread is told, so each that sleeps wakes
  bool Join() override {
    if (thread_.joinable()) thread_.join();
    return true;
  }

 private:
  Bulk& bulk_;
  std::thread thread_;
};

std::unique_ptr<BulkThread> MakePlainThread(Bulk& bulk) { return std::make_unique<PlainThread>(bulk); }

}  // namespace vioctl::uring
