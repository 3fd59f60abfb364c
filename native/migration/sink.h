// Where extracted pages go: runs of a block placed in an output file, written in batches straight from the window.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <vector>

namespace vioctl::migration {

// Bytes [from, to) of a block lie at `out` in the file.
struct Placement {
  uint64_t from, to, out;
};

class Sink {
 public:
  explicit Sink(int fd);
  void Place(size_t block, Placement placement);

  // True if any byte of the block is wanted.
  bool Has(size_t block) const { return block < blocks_.size() && !blocks_[block].empty(); }

  // Queues size bytes of a block's offset; they must stay valid until Flush. Throws SysError.
  void Write(size_t block, uint64_t offset, const uint8_t* bytes, size_t size);
  // Queues zeros over what an earlier record put there.
  void Zero(size_t block, uint64_t offset, size_t size);
  // Copies a run from a file, in the kernel where it can. False if the file ends before the run does.
  bool Copy(size_t block, uint64_t offset, int from, uint64_t at, uint64_t size);
  // Reads back what is there now; zeros outside of all placements.
  void ReadBack(size_t block, uint64_t offset, uint8_t* bytes, size_t size);
  // True if any byte of the range is wanted.
  bool Wants(size_t block, uint64_t offset, uint64_t size) const;
  void Flush();
  uint64_t written() const { return written_; }

 private:
  template <typename F>
  void Each(size_t block, uint64_t offset, uint64_t size, F&& use) const;
  void Queue(uint64_t out, const uint8_t* bytes, size_t size);

  int fd_;
  std::vector<std::vector<Placement>> blocks_;
  std::vector<iovec> queue_;
  uint64_t start_ = 0, next_ = 0;  // file range of the queue
  uint64_t written_ = 0;
  bool reserves_;  // blocks are asked for before a run is written
};

}  // namespace vioctl::migration
