// Parts of the tree's nodes: where nodes come from, how keys are searched.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace vioctl::iova {

// Objects that are given out one by one and taken back one by one or, in O(1), all at once.
template <class T>
class Pool {
 public:
  T* Get() {
    if (free_) {
      T* object = free_;
      memcpy(&free_, static_cast<void*>(object), sizeof free_);
      return object;
    }
    if (used_ == kSlab * slabs_.size()) slabs_.push_back(std::unique_ptr<T[]>(new T[kSlab]));
    T* object = &slabs_[used_ / kSlab][used_ % kSlab];
    used_++;
    return object;
  }
  void Put(T* object) {
    memcpy(static_cast<void*>(object), &free_, sizeof free_);
    free_ = object;
  }
  void Reset() { used_ = 0, free_ = nullptr; }

 private:
  static constexpr size_t kSlab = 8;
  std::vector<std::unique_ptr<T[]>> slabs_;
  size_t used_ = 0;
  T* free_ = nullptr;
};

constexpr uint32_t kKeys = 32;  // of a node

// How many of the ascending keys are at or below the address; keys[count] and all behind it are UINT64_MAX. No branch
// depends on a key and the comparisons do not wait for each other: the keys are random, and mispredictions or a chain
// of loads would cost more than looking at eleven keys.
inline uint32_t CountUpTo(const uint64_t* keys, uint32_t count, uint64_t address) {
  const auto in = [address](uint64_t key) -> uint32_t { return key <= address; };
  const uint32_t block = 8 * (in(keys[7]) + in(keys[15]) + in(keys[23]));
  keys += block;
  const uint32_t rest =
      in(keys[0]) + in(keys[1]) + in(keys[2]) + in(keys[3]) + in(keys[4]) + in(keys[5]) + in(keys[6]) + in(keys[7]);
  return std::min(block + rest, count);
}

}  // namespace vioctl::iova
