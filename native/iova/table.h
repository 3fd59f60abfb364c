// A hash table of 64-bit keys in one array.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace vioctl::iova {

// Keys are scattered by a multiplication, which keeps those in regular steps apart, and a key that finds its place
// taken goes to the next free one. At least half of the places are free, at most seven eighths (sixteen places stay).
template <class Value>
class Table {
 public:
  Table() { Clear(); }

  void Clear() { count_ = 0, Allocate(kLeast); }
  size_t count() const { return count_; }

  // nullptr: it is not there. Valid until the next change.
  Value* Find(uint64_t key) const {
    const size_t at = Seek(key);
    return slots_[at].key == key ? &slots_[at].value : nullptr;
  }

  // Adds the key, with an empty value, unless it is there.
  Value& Add(uint64_t key) {
    size_t at = Seek(key);
    if (slots_[at].key == key) return slots_[at].value;
    if (2 * (count_ + 1) > mask_ + 1) Resize(2 * (mask_ + 1)), at = Seek(key);
    count_++;
    slots_[at] = {key, {}};
    return slots_[at].value;
  }

  void Remove(uint64_t key) {
    size_t hole = Seek(key);
    if (slots_[hole].key != key) return;
    // Who went past the hole to find a place moves into it.
    for (size_t at = (hole + 1) & mask_; slots_[at].key != kNone; at = (at + 1) & mask_) {
      if (((at - Home(slots_[at].key)) & mask_) < ((at - hole) & mask_)) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole].key = kNone;
    count_--;
    if (mask_ + 1 > kLeast && 8 * count_ < mask_ + 1) Resize((mask_ + 1) / 2);
  }

  void Prefetch(uint64_t key) const {
    const Slot* home = &slots_[Home(key)];
    __builtin_prefetch(home);
    if (sizeof(Slot) > 16) __builtin_prefetch(home + 1);
  }

 private:
  static constexpr uint64_t kNone = UINT64_MAX;  // is no key
  static constexpr size_t kLeast = 16;

  struct Slot {
    uint64_t key = kNone;
    Value value;
  };

  size_t Home(uint64_t key) const { return key * 0x9e3779b97f4a7c15 >> shift_; }

  // Where the key is, or the free place that it would take.
  size_t Seek(uint64_t key) const {
    size_t at = Home(key);
    while (slots_[at].key != key && slots_[at].key != kNone) at = (at + 1) & mask_;
    return at;
  }

  void Allocate(size_t size) {
    slots_ = std::make_unique<Slot[]>(size);
    mask_ = size - 1;
    shift_ = 64 - __builtin_ctzll(size);
  }

  void Resize(size_t size) {
    const auto old = std::move(slots_);
    const size_t places = mask_ + 1;
    Allocate(size);
    for (size_t i = 0; i < places; i++)
      if (old[i].key != kNone) slots_[Seek(old[i].key)] = old[i];
  }

  std::unique_ptr<Slot[]> slots_;
  size_t mask_ = 0, count_ = 0;
  int shift_ = 0;
};

}  // namespace vioctl::iova
