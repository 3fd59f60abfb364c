// One bit per page of a block, in chunks made when they are first touched, within a budget that all maps share.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

namespace vioctl::migration {

// Bytes that all page maps of one walk may take: enough for 768 GiB of 4 KiB pages in one map.
struct PageBudget {
  uint64_t left = 24 << 20;
};

class PageMap {
 public:
  // Sets the bit of a page; true if it was set before. Beyond the budget it forgets: full() turns false.
  bool Set(uint64_t page, PageBudget* budget) {
    uint64_t* word = Word(page, budget);
    if (!word) return false;
    const uint64_t bit = uint64_t{1} << (page & 63), before = *word;
    *word = before | bit;
    count_ += (before & bit) == 0;
    return (before & bit) != 0;
  }
  // Sets `count` bits from `page` on; returns how many of them were set before.
  uint64_t SetRun(uint64_t page, uint64_t count, PageBudget* budget) {
    uint64_t again = 0;
    while (count > 0) {
      const uint64_t shift = page & 63, some = count < 64 - shift ? count : 64 - shift;
      if (uint64_t* word = Word(page, budget)) {
        const uint64_t bits = (~uint64_t{0} >> (64 - some)) << shift;
        const auto before = static_cast<uint64_t>(std::popcount(*word & bits));
        *word |= bits;
        again += before;
        count_ += some - before;
      }
      page += some;
      count -= some;
    }
    return again;
  }
  // True if any of `count` bits from `page` on is set.
  bool AnyIn(uint64_t page, uint64_t count) const {
    while (count > 0) {
      const uint64_t shift = page & 63, some = count < 64 - shift ? count : 64 - shift, chunk = page / kPages;
      if (chunk >= chunks_.size()) return false;
      const uint64_t bits = (~uint64_t{0} >> (64 - some)) << shift;
      if (chunks_[chunk] && ((*chunks_[chunk])[(page % kPages) / 64] & bits) != 0) return true;
      page += some;
      count -= some;
    }
    return false;
  }
  void Clear(uint64_t page) {
    const uint64_t chunk = page / kPages;
    if (chunk >= chunks_.size() || !chunks_[chunk]) return;
    uint64_t& word = (*chunks_[chunk])[(page % kPages) / 64];
    const uint64_t bit = uint64_t{1} << (page & 63);
    count_ -= (word & bit) != 0;
    word &= ~bit;
  }
  bool Get(uint64_t page) const {
    const uint64_t chunk = page / kPages;
    if (chunk >= chunks_.size() || !chunks_[chunk]) return false;
    return ((*chunks_[chunk])[(page % kPages) / 64] >> (page & 63)) & 1;
  }
  // No page at or behind this one is set.
  uint64_t end() const { return chunks_.size() * kPages; }
  // Pages set.
  uint64_t count() const { return count_; }
  // False once a page could not be noted.
  bool full() const { return full_; }

 private:
  static constexpr uint64_t kPages = 4096;
  using Chunk = std::array<uint64_t, kPages / 64>;

  uint64_t* Word(uint64_t page, PageBudget* budget) {
    const uint64_t chunk = page / kPages;
    if (chunk >= chunks_.size() || !chunks_[chunk]) {
      const uint64_t grown = chunk >= chunks_.size() ? (chunk + 1 - chunks_.size()) * sizeof(chunks_[0]) : 0;
      if (grown > budget->left || budget->left - grown < sizeof(Chunk)) {
        full_ = false;
        return nullptr;
      }
      budget->left -= grown + sizeof(Chunk);
      if (chunk >= chunks_.size()) chunks_.resize(chunk + 1);
      chunks_[chunk] = std::make_unique<Chunk>();
    }
    return &(*chunks_[chunk])[(page % kPages) / 64];
  }

  std::vector<std::unique_ptr<Chunk>> chunks_;
  uint64_t count_ = 0;
  bool full_ = true;
};

}  // namespace vioctl::migration
