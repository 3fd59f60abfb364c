// I/O queues as a load generator: each thread drives some of them, keeps a number of commands outstanding on each, and
// measures. Whoever calls Run() waits for it in a thread of their own.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "nvme/host/association.h"

namespace vioctl::nvme::host {

struct LoadOptions {
  HostOptions host;
  Address address;
  uint32_t threads = 1;  // the queues are spread over them
  uint32_t depth = 32;   // commands outstanding on each queue
  uint32_t nsid = 1, block_size = 512, io_blocks = 8;
  uint64_t first = 0, blocks = 0;  // the part of the namespace that is used
  int read_percent = 100;
  bool random = true;
  uint64_t duration_ms = 5000, warmup_ms = 200, spin_us = 100, seed = 1;
};

// Latencies in nanoseconds, in buckets of 1/32 of a power of two: at most 3 % wide.
class Histogram {
 public:
  void Add(uint64_t ns);
  void Merge(const Histogram& other);
  // The value below which this part (0 to 1) of the samples lies; 0 without samples.
  uint64_t Percentile(double part) const;
  // Samples from `from` on, and below `to`.
  struct Bucket {
    uint64_t from, to;
    uint32_t count;
  };
  // Those with samples, in order.
  std::vector<Bucket> Buckets() const;
  uint64_t count() const { return count_; }
  uint64_t min() const { return count_ ? min_ : 0; }
  uint64_t max() const { return max_; }
  double mean() const { return count_ ? sum_ / static_cast<double>(count_) : 0; }

 private:
  static constexpr size_t kBuckets = 64 + 58 * 32;
  static Bucket Bounds(size_t index);
  std::array<uint32_t, kBuckets> buckets_{};
  uint64_t count_ = 0, min_ = UINT64_MAX, max_ = 0;
  double sum_ = 0;
};

struct LoadResult {
  uint32_t queues = 0;
  uint64_t reads = 0, writes = 0, errors = 0;
  uint16_t first_error = 0;  // status field of the first command that failed
  double seconds = 0;
  Histogram latency;
};

// Connects, and runs the load until its time is over or `stop` is set. Throws SysError: connection refused or lost,
// EPROTO if the target breaks the protocol, EBADMSG for a wrong digest, ETIMEDOUT; CommandError.
LoadResult Run(const LoadOptions& options, const std::atomic<bool>& stop);

}  // namespace vioctl::nvme::host
