// What hosts have done with a namespace, for metrics: counters and latency histograms. Written by any thread, read by
// any.
#pragma once
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace vioctl::nvme {

// How long commands took, in buckets by powers of two.
class Latency {
 public:
  // Bucket i has what took less than 2^(kFirst + i) ns: 1.024 us to 17 s. The last one has the rest.
  static constexpr int kFirst = 10;
  static constexpr int kBuckets = 26;

  // `count` commands have taken so long each.
  void Add(uint64_t ns, uint64_t count) {
    const int bucket = std::bit_width(ns >> kFirst);
    buckets_[static_cast<size_t>(bucket < kBuckets ? bucket : kBuckets - 1)].fetch_add(count,
                                                                                       std::memory_order_relaxed);
    ns_.fetch_add(ns * count, std::memory_order_relaxed);
  }
  uint64_t bucket(int i) const { return buckets_[static_cast<size_t>(i)].load(std::memory_order_relaxed); }
  uint64_t ns() const { return ns_.load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, kBuckets> buckets_{};
  std::atomic<uint64_t> ns_{0};
};

struct Usage {
  Latency read, write, other;
  std::atomic<uint64_t> readBytes{0}, writtenBytes{0}, flushes{0}, errors{0};
};

}  // namespace vioctl::nvme
