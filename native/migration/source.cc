#include "migration/source.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/error.h"
#include "migration/zlib.h"
#include "os/bus_guard.h"
#include "os/fd.h"

namespace vioctl::migration {

const uint8_t* Source::Slow(size_t need) {
  end_ = broken_ ? End::kIo : End::kNone;
  error_ = broken_;
  if (broken_) {
    have_ = 0;
    return nullptr;
  }
  if (limit_ != UINT64_MAX && (pos_ >= limit_ || need > limit_ - pos_)) {
    // What lies before the limit may be missing as well: then that is the reason.
    const size_t allowed = pos_ >= limit_ ? 0 : static_cast<size_t>(limit_ - pos_);
    if (allowed > 0 && !Slow(allowed)) return nullptr;
    end_ = End::kLimit;
    have_ = allowed;
    return nullptr;
  }
  if (pos_ < at_ || pos_ > at_ + size_ || need > at_ + size_ - pos_) Fill(need);
  const uint64_t stop = at_ + size_;
  have_ = pos_ >= at_ && pos_ <= stop ? static_cast<size_t>(stop - pos_) : 0;
  if (have_ >= need) return data_ + (pos_ - at_);
  if (end_ == End::kNone) end_ = End::kEof;
  return nullptr;
}

size_t Source::Some(const uint8_t** bytes, size_t need) {
  need = std::min(need, kMaxNeed);
  const uint8_t* at = Need(1);
  if (!at) return 0;
  *bytes = at;
  return std::min(need, Ready());
}

uint64_t Source::Skip(uint64_t size) {
  uint64_t done = 0;
  if (seekable() && !broken_) {
    const uint64_t stop = std::min(limit_, this->size());
    done = std::min(size, stop > pos_ ? stop - pos_ : 0);
    if (done < size) {
      end_ = limit_ < this->size() ? End::kLimit : End::kEof;
      error_ = 0;
    }
    if (const uint64_t to = GivesUpTo(pos_, pos_ + done); to < pos_ + done) {
      done = to - pos_;
      end_ = End::kIo;
      error_ = EIO;
    }
    pos_ += done;
    return done;
  }
  while (done < size) {
    const uint8_t* bytes;
    const size_t some = Some(&bytes, static_cast<size_t>(std::min<uint64_t>(size - done, kMaxNeed)));
    if (some == 0) break;
    Consume(some);
    done += some;
  }
  return done;
}

size_t Source::Read(uint8_t* to, size_t size) {
  size_t done = 0;
  while (done < size) {
    const uint8_t* bytes;
    const size_t some = Some(&bytes, size - done);
    if (some == 0) break;
    memcpy(to + done, bytes, some);
    Consume(some);
    done += some;
  }
  return done;
}

namespace {

class Mapped final : public Source {
 public:
  Mapped(int fd, uint64_t start) : fd_(fd), page_(os::PageSizeOf(fd)) {
    pos_ = start;
    length_ = static_cast<uint64_t>(Check(lseek(fd, 0, SEEK_END), "lseek"));
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);  // a hint: a larger read-ahead; not every file has one
  }
  bool seekable() const override { return true; }
  uint64_t size() const override { return length_; }
  uint64_t SizeNow() const override { return static_cast<uint64_t>(std::max<off_t>(0, lseek(fd_, 0, SEEK_END))); }
  bool TakeLoss() override { return map_.TakeBroken() | std::exchange(lost_, false); }

 protected:
  void Fill(size_t need) override {
    constexpr uint64_t kWindow = 4 << 20, kOver = 64 << 10;
    // Whoever reads on needs every page, and maps them faster at once than by a fault for each 64 KiB. A page of the
    // guest that nobody reads may have been passed over at the window's end.
    const bool onward = pos_ > at_ && size_ > 0 && pos_ <= at_ + size_ + kOver;
    lost_ |= map_.broken();
    map_.Reset();
    size_ = 0;
    // The file is asked again: bytes behind its present end may not be touched.
    const off_t now = lseek(fd_, 0, SEEK_END);
    if (now >= 0) length_ = static_cast<uint64_t>(now);
    at_ = pos_;
    if (pos_ >= length_) {
      end_ = End::kEof;
      return;
    }
    const uint64_t base = os::RoundDown(pos_, page_);
    const size_t size = static_cast<size_t>(std::min(kWindow, length_ - base));
    try {
      map_ = os::GuardedMapping(fd_, size, false, static_cast<off_t>(base));
    } catch (const SysError& error) {
      end_ = End::kIo;
      error_ = error.err();
      return;
    }
    if (onward) (void)os::Populate(map_.get(), size, false);  // what fails here fails again where it is read
    data_ = map_.get();
    at_ = base;
    size_ = size;
    if (need > at_ + size_ - pos_) end_ = End::kEof;
  }

 private:
  int fd_;
  uint64_t length_;
  const uint64_t page_;
  os::GuardedMapping map_;
  bool lost_ = false;  // an earlier window lost pages
};

// Sources that fill a buffer.
class Buffered : public Source {
 public:
  Buffered() : buffer_(new uint8_t[kBuffer]) { data_ = buffer_.get(); }

 protected:
  static constexpr size_t kBuffer = 256 << 10;

  void Fill(size_t need) override {
    size_t kept = 0;
    if (pos_ >= at_ && pos_ <= at_ + size_) {
      kept = static_cast<size_t>(at_ + size_ - pos_);
      memmove(buffer_.get(), data_ + (pos_ - at_), kept);
    }
    at_ = pos_;
    size_ = kept;
    while (size_ < need && end_ == End::kNone) size_ += More(buffer_.get() + size_, kBuffer - size_, at_ + size_);
  }

  // Begins with bytes that are there already.
  void Preset(const uint8_t* bytes, size_t size) {
    if (size > 0) memcpy(buffer_.get(), bytes, size);
    size_ = size;
  }
  // Up to `room` bytes of position `from`; 0 sets end_.
  virtual size_t More(uint8_t* to, size_t room, uint64_t from) = 0;

 private:
  std::unique_ptr<uint8_t[]> buffer_;
};

class Pipe final : public Buffered {
 public:
  Pipe(int fd, uint64_t start, const uint8_t* prefix, size_t prefix_size) : fd_(fd) {
    pos_ = at_ = start;
    Preset(prefix, std::min<size_t>(prefix_size, 64 << 10));
    os::GrowPipe(fd, 1 << 20);
  }
  bool seekable() const override { return false; }

 protected:
  size_t More(uint8_t* to, size_t room, uint64_t) override {
    for (;;) {
      const ssize_t got = ::read(fd_, to, room);
      if (got > 0) return static_cast<size_t>(got);
      if (got == 0) {
        end_ = End::kEof;
        return 0;
      }
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        pollfd waiting{fd_, POLLIN, 0};
        ::poll(&waiting, 1, -1);
        continue;
      }
      end_ = End::kIo;
      error_ = errno;
      return 0;
    }
  }

 private:
  int fd_;
};

class Pieces final : public Buffered {
 public:
  Pieces(int fd, std::vector<Extent> extents) : fd_(fd), extents_(std::move(extents)) {}
  bool seekable() const override { return true; }
  uint64_t size() const override { return extents_.empty() ? 0 : extents_.back().from + extents_.back().length; }

 protected:
  size_t More(uint8_t* to, size_t room, uint64_t from) override {
    auto next = std::upper_bound(extents_.begin(), extents_.end(), from,
                                 [](uint64_t value, const Extent& extent) { return value < extent.from; });
    if (next == extents_.begin() || from >= std::prev(next)->from + std::prev(next)->length) {
      end_ = End::kEof;
      return 0;
    }
    const Extent& extent = *std::prev(next);
    const uint64_t into = from - extent.from;
    room = static_cast<size_t>(std::min<uint64_t>(room, extent.length - into));
    if (extent.file == Extent::kZero) {
      memset(to, 0, room);
      return room;
    }
    ssize_t got = -1;
    errno = EIO;
    if (extent.file >= 0) {
      do got = ::pread(fd_, to, room, static_cast<off_t>(static_cast<uint64_t>(extent.file) + into));
      while (got < 0 && errno == EINTR);
    }
    if (got > 0) return static_cast<size_t>(got);
    end_ = got == 0 ? End::kEof : End::kIo;
    error_ = got == 0 ? 0 : errno;
    return 0;
  }
  uint64_t GivesUpTo(uint64_t from, uint64_t to) const override {
    auto next = std::upper_bound(extents_.begin(), extents_.end(), from,
                                 [](uint64_t value, const Extent& extent) { return value < extent.from; });
    if (next != extents_.begin()) --next;
    for (; next != extents_.end() && next->from < to; ++next)
      if (next->file == Extent::kBad && next->from + next->length > from) return std::max(from, next->from);
    return to;
  }

 private:
  int fd_;
  std::vector<Extent> extents_;
};

class Gzip final : public Buffered {
 public:
  explicit Gzip(std::unique_ptr<Source> inner) : inner_(std::move(inner)) {}
  bool seekable() const override { return false; }
  bool TakeLoss() override { return inner_->TakeLoss(); }

 protected:
  size_t More(uint8_t* to, size_t room, uint64_t) override {
    for (;;) {
      const uint8_t* in = nullptr;
      const size_t given = inner_->Some(&in, kMaxNeed);
      if (given == 0) {
        // Between two members this is the end; inside one, the data was cut off.
        const bool inside = open_ || inner_->end() == End::kIo;
        end_ = inside ? End::kIo : End::kEof;
        error_ = inner_->end() == End::kIo ? inner_->error() : inside ? EBADMSG : 0;
        return 0;
      }
      if (!open_) {
        if (members_ > 0 && in[0] != 0x1f) {  // padding behind the last member
          end_ = End::kEof;
          return 0;
        }
        inflater_.Start(Inflater::kGzip);
        open_ = true;
      }
      const Inflater::Result result = inflater_.Run(in, given, to, room);
      inner_->Consume(result.used);
      if (result.status == Inflater::kBad) {
        end_ = End::kIo;
        error_ = EBADMSG;
        return 0;
      }
      if (result.status == Inflater::kDone) {
        open_ = false;
        ++members_;
      }
      if (result.made > 0) return result.made;
    }
  }

 private:
  std::unique_ptr<Source> inner_;
  Inflater inflater_;
  bool open_ = false;
  uint64_t members_ = 0;
};

}  // namespace

std::unique_ptr<Source> OpenMapped(int fd, uint64_t start) { return std::make_unique<Mapped>(fd, start); }
std::unique_ptr<Source> OpenPipe(int fd, uint64_t start, const uint8_t* prefix, size_t prefix_size) {
  return std::make_unique<Pipe>(fd, start, prefix, prefix_size);
}
std::unique_ptr<Source> OpenExtents(int fd, std::vector<Extent> extents) {
  return std::make_unique<Pieces>(fd, std::move(extents));
}
std::unique_ptr<Source> OpenGzip(std::unique_ptr<Source> inner) { return std::make_unique<Gzip>(std::move(inner)); }

}  // namespace vioctl::migration
