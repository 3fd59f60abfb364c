#include "nvme/landing.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/assert.h"
#include "nvme/connection.h"

namespace vioctl::nvme {
namespace {

size_t BlockOf(const Request& request) { return size_t{1} << request.ns->shift; }

// Where its data begins in the memory of its store; nullptr if that has none.
std::byte* MemoryOf(const Request& request) {
  return request.ns->store->Memory(request.sqe.slba() << request.ns->shift, request.length);
}

// Enters among the writers of its namespace, unless that must not be written now, or not any more.
bool Enter(const Request& request) {
  Namespace* ns = request.ns.get();
  if (!ns || ns->removed.load(std::memory_order_relaxed)) return false;
  const uint64_t blocks = ns->blocks.load(std::memory_order_relaxed), first = request.sqe.slba();
  return first < blocks && request.length >> ns->shift <= blocks - first && ns->TryWrite();
}

}  // namespace

bool Landing::Suits(const Request& request, uint32_t length) {
  if (request.kind != Kind::kIo || request.sqe.opcode != kWrite || (request.sqe.flags & 3) != 0) return false;
  if (request.status != kOk || !request.ns || request.buffer) return false;
  return length % BlockOf(request) == 0 && MemoryOf(request) != nullptr;
}

iovec Landing::Room(const Request& request, int socket, uint32_t left) {
  const size_t kept = request.received - request.placed;
  if (kept > 0) return request.ns ? iovec{block_.data() + kept, BlockOf(request) - kept} : iovec{};
  if (!request.ns) return {};
  const size_t block = BlockOf(request);
  block_.resize(block);  // here: nothing may throw while it is in the store
  if (!Enter(request)) return {};
  // What is there already comes at once, all that is asked for: it does not end within a block.
  int there = 0;
  if (::ioctl(socket, SIOCINQ, &there) != 0) there = 0;
  if (const size_t whole = std::min<size_t>(left, static_cast<size_t>(there)) / block * block) {
    entered_ = true;
    return {MemoryOf(request) + request.placed, whole};
  }
  request.ns->WriteDone();
  return {block_.data(), block};
}

bool Landing::Landed(Request& request, size_t size) {
  if (!std::exchange(entered_, false))
    return size == 0 || request.received + size - request.placed < BlockOf(request) || Put(request);
  const size_t block = BlockOf(request), rest = size % block;
  request.placed += static_cast<uint32_t>(size - rest);
  // Urgent data, which no host sends, ends a read early.
  memcpy(block_.data(), MemoryOf(request) + request.placed, rest);
  request.ns->WriteDone();
  return true;
}

// Puts the block that has become whole into the store.
bool Landing::Put(Request& request) {
  if (!Enter(request)) return false;
  const size_t block = BlockOf(request);
  memcpy(MemoryOf(request) + request.placed, block_.data(), block);
  request.placed += static_cast<uint32_t>(block);
  request.ns->WriteDone();
  return true;
}

bool Landing::Copy(Request& request, const uint8_t* data, size_t size) {
  if (!Enter(request)) return false;
  VIOCTL_ASSERT(request.received == request.placed);  // the first bytes of a PDU
  const size_t block = BlockOf(request), rest = size % block;
  memcpy(MemoryOf(request) + request.placed, data, size - rest);
  request.placed += static_cast<uint32_t>(size - rest);
  request.ns->WriteDone();
  block_.resize(block);
  memcpy(block_.data(), data + size - rest, rest);
  return true;
}

void Landing::Leave(const Request& request, uint8_t* buffer) const {
  std::copy_n(block_.begin(), request.received - request.placed, buffer + request.placed);
}

}  // namespace vioctl::nvme
