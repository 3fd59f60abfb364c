// Requests of a store with limits (storage/throttle.h): they wait for their turn in the queue, without a buffer, a
// thread or an entry of the ring.
#include <cerrno>

#include "vhost_user/blk.h"

namespace vioctl::vhost_user {

// Whether a request may go. If not, it comes back to Go(). A queue that ends does not wait: its driver does.
bool BlkQueue::MayGo(uint32_t slot, uint64_t bytes) {
  storage::Throttle& throttle = options_.store->throttle();
  if (!throttle.active() || draining_) return true;
  Work& work = requests_[slot].work;
  work.parked = true;
  if (throttle.Enter(work, bytes)) {
    work.parked = false;
    return true;
  }
  completions_.Gave(1);
  parked_++;
  return false;
}

void BlkQueue::Go(uint32_t slot) {
  Request& request = requests_[slot];
  request.work.parked = false;
  parked_--;
  if (!request.ranges.empty()) return NextRange(slot);
  // The disk may have become smaller since: what is written now must not make it as long as it was.
  const uint64_t size = options_.store->size();
  if (request.offset > size || request.size > size - request.offset) return Finish(slot, EINVAL);
  Transfer(slot);
}

// Nobody waits for his turn any more.
void BlkQueue::Unpark() {
  if (parked_ == 0) return;
  for (Request& request : requests_)
    if (request.work.parked && options_.store->throttle().Leave(request.work)) completions_.Post(&request.work);
}

}  // namespace vioctl::vhost_user
