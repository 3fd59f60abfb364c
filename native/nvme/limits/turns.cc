// Commands whose source has limits (storage/throttle.h), or whose host (budget.h): they wait for their turn before they
// hold a buffer, so that a slow source costs no other namespace of the connection its share, and a greedy host no other
// host.
#include <utility>

#include "nvme/connection.h"

namespace vioctl::nvme {

void Request::Admitted() { connection->worker().Post(Worker::Go{this}); }

// What a command has to do with the limits of its source. True: it waits for its turn, without data of its own but what
// came in its capsule.
bool Connection::Park(Request& request, const uint8_t* data, uint32_t length) {
  const Sqe& sqe = request.sqe;
  if (sqe.opcode == kFlush) return false;
  // Deallocated and zeroed blocks are no data that moves; what Copy moves is known later.
  const bool moves = sqe.opcode == kRead || sqe.opcode == kWrite || sqe.opcode == kCompare;
  const uint64_t bytes = moves                   ? request.length
                         : sqe.opcode == kVerify ? ((sqe.cdw12 & 0xffff) + 1ull) << request.ns->shift
                                                 : 0;
  storage::Throttle& throttle = request.ns->store->throttle();
  // Of a fused pair, neither half may wait: the other one may be what it waits behind.
  if ((sqe.flags & 3) != 0) {
    throttle.Charge(1, bytes);
    return false;
  }
  if (length > 0) Own(request, data, length);
  request.state = Request::kParked;
  request.received = length;
  parked_++;  // before the pacer knows it
  controller_->running.fetch_add(1, std::memory_order_relaxed);
  if (!throttle.Enter(request, bytes)) return true;
  Unparked();
  request.state = Request::kRunning;
  request.received = 0;
  return false;
}

// What a command has to do with the budget of its host. True: it waits for room, without data of its own but what came
// in its capsule.
bool Connection::Hold(Request& request, const uint8_t* data, uint32_t length) {
  Budget* budget = controller_->budget.get();
  if (request.length == 0 || request.held > 0 || !budget || !budget->active()) return false;
  request.held = request.length;
  if ((request.sqe.flags & 3) != 0) {
    budget->Charge(request.held);
    return false;
  }
  if (length > 0 && !request.buffer) Own(request, data, length);
  request.state = Request::kParked;
  request.received = length;
  parked_++;
  controller_->running.fetch_add(1, std::memory_order_relaxed);
  if (!budget->Enter(request, request.held)) return true;
  Unparked();
  request.state = Request::kRunning;
  request.received = 0;
  return false;
}

void Connection::GiveBack(Request& request) {
  if (const uint32_t held = std::exchange(request.held, 0)) controller_->budget->Give(held);
}

// Takes a command back that waits for its turn. False: it is on its way here (Go()).
bool Connection::LeaveTurn(Request& request) {
  if (request.held == 0) return request.ns->store->throttle().Leave(request);
  if (!controller_->budget->Leave(request)) return false;
  request.held = 0;
  return true;
}

void Connection::Unparked() {
  parked_--;
  controller_->running.fetch_sub(1, std::memory_order_release);
}

void Connection::Go(Request& request) {
  Unparked();
  if (state_ == kClosed || state_ == kDraining) {
    request.state = Request::kRunning;
    Drop(request);
    return;
  }
  const uint32_t length = std::exchange(request.received, 0);
  request.state = Request::kRunning;
  // The namespace may have become smaller since, or gone.
  const uint8_t opcode = request.sqe.opcode;
  Status status = kOk;
  if (request.ns->removed.load(std::memory_order_relaxed))
    status = kInvalidNamespace;
  else if (opcode == kRead || opcode == kWrite || opcode == kCompare)
    status = CheckRange(*request.ns, request.sqe.slba(), request.length >> request.ns->shift);
  else if (opcode == kWriteZeroes || opcode == kVerify)
    status = CheckRange(*request.ns, request.sqe.slba(), (request.sqe.cdw12 & 0xffff) + 1ull);
  if (status != kOk)
    Respond(request, status);
  else if (!Hold(request, request.buffer, length))
    Proceed(request, request.buffer, length);
  Flush();
  if (paused_) Resume();
  Arm();
}

void Connection::Unpark() {
  partial_.clear();  // what was not begun is not begun any more
  if (parked_ == 0) return;
  for (auto& chunk : chunks_)
    for (size_t i = 0; i < kSlotChunk; i++) {
      Request& request = chunk[i];
      if (request.state != Request::kParked || !LeaveTurn(request)) continue;
      Unparked();
      request.state = Request::kRunning;
      Drop(request);
    }
}

void Connection::Proceed(Request& request, const uint8_t* data, uint32_t length) {
  if (request.sqe.opcode == kRead) return Read(request);
  if (request.length > 0 && length == 0) return Collect(request, request.length);
  Start(request, data);
}

}  // namespace vioctl::nvme
