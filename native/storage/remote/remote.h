// A source that is not of this machine: threads of its own, or of a library, talk to whoever has the data, and answer
// requests when they can. This base gives it the methods of Store that wait.
//
// What a source does: it opens in a function that may wait (openRemote of the binding runs it on a thread), answers
// each request within its time-out, and ends in its destructor, which no request outlives. Errors are errnos. Away()
// names those that say that nobody could be asked: hosts are told to try another path, and a flush that ended so is no
// loss as long as the source can still make good what it has acknowledged.
#pragma once
#include <cstdint>
#include <mutex>
#include <vector>

#include "storage/request.h"
#include "storage/store.h"

namespace vioctl::storage {

// What is to be told of a source. Threads that may outlive it share this.
class NewsBoard {
 public:
  // Puts something into the log of whoever serves the source; what is too much is left out. From any thread.
  void Tell(const char* what, int err = 0);
  std::vector<News> Take();

 private:
  static constexpr size_t kMost = 64;  // that nobody has taken yet
  std::mutex lock_;
  std::vector<News> news_;
};

class Remote : public Store {
 public:
  bool remote() const override { return true; }
  std::vector<News> TakeNews() override { return news_->Take(); }

 protected:
  void Tell(const char* what, int err = 0) { news_->Tell(what, err); }

  const std::shared_ptr<NewsBoard> news_ = std::make_shared<NewsBoard>();

  int DoRead(const iovec* to, int count, uint64_t offset, bool nowait) override;
  int DoWrite(const iovec* from, int count, uint64_t offset) override;
  int DoSync() override;
  int DoZero(uint64_t offset, uint64_t length, bool deallocate) override;
  int DoDiscard(uint64_t offset, uint64_t length) override;

 private:
  // Begins a request and waits for its end.
  int Wait(Request& request);
};

// Whether an errno says that nobody could be asked.
bool Away(int err);

}  // namespace vioctl::storage
