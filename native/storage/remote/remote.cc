#include "storage/remote/remote.h"

#include <cerrno>
#include <semaphore>
#include <utility>

namespace vioctl::storage {

int Remote::Wait(Request& request) {
  struct Waiting : Request {
    std::binary_semaphore ended{0};
  } waiting;
  static_cast<Request&>(waiting) = request;
  waiting.done = [](Request* done) { static_cast<Waiting*>(done)->ended.release(); };
  Begin(&waiting);
  waiting.ended.acquire();
  return waiting.result;
}

bool Away(int err) { return err == ENOTCONN || err == ETIMEDOUT || err == ESHUTDOWN; }

void NewsBoard::Tell(const char* what, int err) {
  std::lock_guard guard(lock_);
  if (news_.size() < kMost) news_.push_back({what, err});
}

std::vector<News> NewsBoard::Take() {
  std::lock_guard guard(lock_);
  return std::exchange(news_, {});
}

int Remote::DoRead(const iovec* to, int count, uint64_t offset, bool) {
  Request request{.op = Op::kRead, .parts = to, .count = count, .offset = offset, .length = BytesOf(to, count)};
  return Wait(request);
}

int Remote::DoWrite(const iovec* from, int count, uint64_t offset) {
  Request request{.op = Op::kWrite, .parts = from, .count = count, .offset = offset, .length = BytesOf(from, count)};
  return Wait(request);
}

int Remote::DoSync() {
  Request request{.op = Op::kFlush};
  return Wait(request);
}

int Remote::DoZero(uint64_t offset, uint64_t length, bool deallocate) {
  Request request{.op = Op::kZero, .deallocate = deallocate, .offset = offset, .length = length};
  return Wait(request);
}

int Remote::DoDiscard(uint64_t offset, uint64_t length) {
  Request request{.op = Op::kDiscard, .offset = offset, .length = length};
  return Wait(request);
}

}  // namespace vioctl::storage
