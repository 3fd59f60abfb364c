#include "nvme/host/outbox.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/crc32c.h"
#include "common/error.h"
#include "nvme/host/command.h"
#include "storage/remote/parts.h"

namespace vioctl::nvme::host {
namespace {

// Data of at most this many bytes is copied behind its header, which costs less than a piece of its own.
constexpr uint32_t kCopied = 8 << 10;
constexpr size_t kMaxPieces = 256;       // of one system call
constexpr size_t kMaxKept = 4 << 20;     // bytes
constexpr size_t kKeepHead = 256 << 10;  // bytes of head_ that have been sent, before the rest is moved down

}  // namespace

void Slice(const iovec* parts, int count, uint64_t from, uint64_t size, std::vector<iovec>& out) {
  storage::Through(parts, count, from, size, [&out](std::byte* part, uint64_t, uint64_t some) {
    out.push_back({part, some});
  });
}

uint8_t* Outbox::Head(size_t size) {
  if (head_end_ + size > head_.size()) head_.resize(std::max(head_.size() * 2, head_end_ + size));
  uint8_t* at = head_.data() + head_end_;
  head_end_ += size;
  put_ += size;
  if (out_.size() > out_start_ && !out_.back().memory)
    out_.back().size += size;
  else
    out_.push_back({nullptr, size, nullptr});
  return at;
}

void Outbox::Put(void* header, size_t hlen, Command* data, uint64_t from, uint32_t size) {
  const size_t end = hlen + (header_digest ? kDigest : 0);
  const size_t pdo = size ? (end + align - 1) / align * align : end;
  auto* ch = static_cast<CommonHeader*>(header);
  if (header_digest) ch->flags |= kHdgstFlag;
  if (size && data_digest) ch->flags |= kDdgstFlag;
  ch->pdo = static_cast<uint8_t>(size ? pdo : 0);
  ch->plen = static_cast<uint32_t>(pdo + size + (size && data_digest ? kDigest : 0));
  const bool copied = size <= kCopied;
  uint8_t* at = Head(pdo + (copied ? size : 0));
  memcpy(at, header, hlen);
  if (header_digest) {
    const uint32_t crc = Crc32c(header, hlen);
    memcpy(at + hlen, &crc, kDigest);
  }
  memset(at + end, 0, pdo - end);
  if (size == 0) return;
  uint32_t crc = 0;
  if (copied) {
    storage::Through(data->parts, data->count, data->skip + from, size,
                     [to = at + pdo](std::byte* part, uint64_t done, uint64_t some) { memcpy(to + done, part, some); });
    if (data_digest) crc = Crc32c(at + pdo, size);
  } else {
    iov_.clear();
    Slice(data->parts, data->count, data->skip + from, size, iov_);
    for (const iovec& part : iov_) {
      const auto* bytes = static_cast<const uint8_t*>(part.iov_base);
      if (data_digest) crc = Crc32c(bytes, part.iov_len, crc);
      out_.push_back({bytes, part.iov_len, data});
      put_ += part.iov_len;
      data->unsent++;
    }
  }
  if (data_digest) memcpy(Head(kDigest), &crc, kDigest);
}

bool Outbox::Flush(Stream& stream) {
  bool any = stream.Push();
  while (out_start_ < out_.size()) {
    iov_.clear();
    size_t at = head_start_, total = 0;
    for (size_t i = out_start_; i < out_.size() && iov_.size() < kMaxPieces; i++) {
      const Piece& piece = out_[i];
      iov_.push_back({piece.memory ? const_cast<uint8_t*>(piece.memory) : head_.data() + at, piece.size});
      if (!piece.memory) at += piece.size;
      total += piece.size;
    }
    const ssize_t n = stream.Write(iov_.data(), static_cast<int>(iov_.size()));
    if (n == -EAGAIN) return any;
    if (n < 0) throw SysError(static_cast<int>(-n), "send");
    any = true;
    Sent(static_cast<size_t>(n));
    if (static_cast<size_t>(n) < total) return true;
  }
  return any;
}

void Outbox::Sent(size_t size) {
  sent_ += size;
  while (size > 0) {
    Piece& piece = out_[out_start_];
    const size_t n = std::min(size, piece.size);
    size -= n;
    piece.size -= n;
    if (piece.memory)
      piece.memory += n;
    else
      head_start_ += n;
    if (piece.size > 0) return;
    if (piece.owner) piece.owner->unsent--;
    out_start_++;
  }
  if (out_start_ == out_.size())
    Forget();
  else if (head_start_ >= kKeepHead) {
    memmove(head_.data(), head_.data() + head_start_, head_end_ - head_start_);
    head_end_ -= std::exchange(head_start_, 0);
    out_.erase(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(std::exchange(out_start_, 0)));
  }
}

bool Outbox::Keep(Command* command) {
  for (size_t i = out_start_; i < out_.size(); i++) {
    Piece& piece = out_[i];
    if (piece.owner != command) continue;
    if (kept_bytes_ + piece.size > kMaxKept) return false;
    auto copy = std::make_unique<uint8_t[]>(piece.size);
    memcpy(copy.get(), piece.memory, piece.size);
    piece.memory = copy.get();
    piece.owner = nullptr;
    kept_bytes_ += piece.size;
    kept_.push_back(std::move(copy));
  }
  command->unsent = 0;
  return true;
}

void Outbox::Forget() {
  out_.clear();
  kept_.clear();
  out_start_ = head_start_ = head_end_ = kept_bytes_ = 0;
}

}  // namespace vioctl::nvme::host
