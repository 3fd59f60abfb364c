// Where a migration stream comes from: a mapped file, a pipe, pieces of a file, or gzip over any of these. One reading
// interface for all: how many bytes are really there, or why there are none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "migration/shared.h"

namespace vioctl::migration {

class Source {
 public:
  virtual ~Source() = default;
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  // A pointer to the bytes at position(), at least need (<= kMaxNeed) of them, or nullptr: end() says why, have() how
  // many there are. Valid until the next call. Ready() tells how many bytes beyond may be used.
  const uint8_t* Need(size_t need) {
    const uint64_t stop = at_ + size_;
    if (pos_ >= at_ && pos_ <= stop && need <= Clip(stop) - pos_ && need <= stop - pos_) return data_ + (pos_ - at_);
    return Slow(need);
  }
  // Bytes of the window from position(), within the limit.
  size_t Ready() const { return static_cast<size_t>(Clip(at_ + size_) - pos_); }
  // The window, as many as there are up to need; for callers that take what they get. 0 at an end.
  size_t Some(const uint8_t** bytes, size_t need);
  void Consume(size_t size) { pos_ += size; }

  // Moves on by size bytes; returns how many there were. Any size: a seek, or read and drop.
  uint64_t Skip(uint64_t size);
  // Goes to an absolute position (seekable sources only).
  void Seek(uint64_t to) { pos_ = to; }
  // Copies up to size bytes out; returns how many there were.
  size_t Read(uint8_t* to, size_t size);

  uint64_t position() const { return pos_; }
  End end() const { return end_; }
  int error() const { return error_; }
  size_t have() const { return have_; }
  // From now on every read fails with this error; the position goes back to where the data ends now, if it is behind.
  void Break(int error, uint64_t end) {
    broken_ = error;
    end_ = End::kIo;
    error_ = error;
    size_ = 0;
    if (pos_ > end) pos_ = end;
  }
  // No byte at or behind `end` is given out; UINT64_MAX is no limit.
  void Limit(uint64_t end) { limit_ = end; }

  virtual bool seekable() const = 0;
  // Position of the end, for seekable sources.
  virtual uint64_t size() const { return 0; }
  // The same, asked of the system again.
  virtual uint64_t SizeNow() const { return size(); }
  // True once after bytes were given out that the file no longer had: they were zeros that nobody wrote.
  virtual bool TakeLoss() { return false; }

 protected:
  // Where the bytes from `from` on end that a seekable source can give, at most `to`; not before `from`.
  virtual uint64_t GivesUpTo(uint64_t from, uint64_t to) const {
    (void)from;
    return to;
  }
  // Makes the window hold `need` bytes from pos_, or as many as there are; then end_ and error_ say why.
  virtual void Fill(size_t need) = 0;

  const uint8_t* data_ = nullptr;  // window: bytes [at_, at_ + size_)
  uint64_t at_ = 0;
  size_t size_ = 0;
  uint64_t pos_ = 0;
  End end_ = End::kNone;
  int error_ = 0;

 private:
  uint64_t Clip(uint64_t stop) const { return stop < limit_ ? stop : (limit_ > pos_ ? limit_ : pos_); }
  const uint8_t* Slow(size_t need);

  uint64_t limit_ = UINT64_MAX;
  size_t have_ = 0;
  int broken_ = 0;
};

// A run of a stream that lies in pieces in a file (a qcow2 snapshot).
struct Extent {
  uint64_t from;    // position in the stream
  uint64_t length;  // bytes
  int64_t file;     // offset in the file; kZero: reads as zeros; kBad: cannot be read
  static constexpr int64_t kZero = -1;
  static constexpr int64_t kBad = -2;
};

// A regular file or block device, mapped a window at a time. If the file shrinks while it is mapped the reads end with
// an I/O error instead of SIGBUS.
std::unique_ptr<Source> OpenMapped(int fd, uint64_t start);
// Anything that can only be read in order. Positions count from `start`; prefix (at most 64 KiB) was read before.
std::unique_ptr<Source> OpenPipe(int fd, uint64_t start, const uint8_t* prefix, size_t prefix_size);
// Pieces of a file.
std::unique_ptr<Source> OpenExtents(int fd, std::vector<Extent> extents);
// The gzip members (RFC 1952) in another source, from its position on.
std::unique_ptr<Source> OpenGzip(std::unique_ptr<Source> inner);

}  // namespace vioctl::migration
