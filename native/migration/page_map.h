// One bit per page of a block, in chunks made when they are first touched, within a budget that all maps share.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

namespace vioctl::migration {

// Bytes that all page maps of one walk may take. Only chunks that are set in part cost any (24 MiB are 49,000 of them,
// 16 MiB of 4 KiB pages each), beside a pointer for every chunk.
struct PageBudget {
  uint64_t left = 24 << 20;
};

class PageMap {
 public:
  // Sets the bit of a page; true if it was set before. Beyond the budget it forgets: full() turns false.
  bool Set(uint64_t page, PageBudget* budget) { return Or(page, uint64_t{1} << (page & 63), budget) != 0; }
  // Sets `count` bits from `page` on; returns how many of them were set before.
  uint64_t SetRun(uint64_t page, uint64_t count, PageBudget* budget) {
    uint64_t again = 0;
    while (count > 0) {
      const uint64_t some = InWord(page, count);
      if (const uint64_t before = Or(page, Bits(page, some), budget)) again += Count(before);
      page += some;
      count -= some;
    }
    return again;
  }
  void Clear(uint64_t page, PageBudget* budget) {
    if (!Get(page)) return;
    auto& chunk = chunks_[page / kPages];
    if (chunk.get() == &Whole()) {
      if (budget->left < sizeof(Chunk)) {
        full_ = false;
        return;
      }
      budget->left -= sizeof(Chunk);
      chunk.reset(new Chunk(Whole()));
    }
    chunk->words[(page % kPages) / 64] &= ~(uint64_t{1} << (page & 63));
    --chunk->set;
    --count_;
  }
  bool Get(uint64_t page) const { return Knows(page) && ((Word(page) >> (page & 63)) & 1); }
  // True if any of `count` bits from `page` on is set, or would be if it had been noted.
  bool MayHave(uint64_t page, uint64_t count = 1) const {
    if (full_ && count_ == 0) return false;
    while (count > 0) {
      const uint64_t some = InWord(page, count);
      if (Knows(page) ? (Word(page) & Bits(page, some)) != 0 : !full_) return true;
      page += some;
      count -= some;
    }
    return false;
  }
  // Whether the bit of the page is there, set or not.
  bool Knows(uint64_t page) const { return page / kPages < chunks_.size() && chunks_[page / kPages]; }
  // No page at or behind this one is set.
  uint64_t end() const { return chunks_.size() * kPages; }
  // Pages set.
  uint64_t count() const { return count_; }
  // False once a page could not be noted.
  bool full() const { return full_; }

 private:
  static constexpr uint64_t kPages = 4096;
  struct Chunk {
    std::array<uint64_t, kPages / 64> words{};
    uint64_t set = 0;
  };
  // All pages set: one for all maps, since memory that is sent whole makes nearly all of them so.
  static Chunk& Whole() {
    static Chunk whole = [] {
      Chunk chunk;
      chunk.words.fill(~uint64_t{0});
      chunk.set = kPages;
      return chunk;
    }();
    return whole;
  }
  struct Drop {
    void operator()(Chunk* chunk) const {
      if (chunk != &Whole()) delete chunk;
    }
  };

  static uint64_t Count(uint64_t bits) { return static_cast<uint64_t>(std::popcount(bits)); }
  // How many of `count` pages from `page` on are in its word, and their bits there.
  static uint64_t InWord(uint64_t page, uint64_t count) { return std::min(count, 64 - (page & 63)); }
  static uint64_t Bits(uint64_t page, uint64_t some) { return (~uint64_t{0} >> (64 - some)) << (page & 63); }
  uint64_t Word(uint64_t page) const { return chunks_[page / kPages]->words[(page % kPages) / 64]; }

  // Sets bits in the word of a page; returns those of them that were set before.
  uint64_t Or(uint64_t page, uint64_t bits, PageBudget* budget) {
    const uint64_t index = page / kPages;
    if (!Knows(page) && !Make(index, budget)) return 0;
    Chunk& chunk = *chunks_[index];
    uint64_t& word = chunk.words[(page % kPages) / 64];
    const uint64_t before = word & bits;
    if (before == bits) return before;
    const uint64_t added = Count(bits ^ before);
    word |= bits;
    count_ += added;
    chunk.set += added;
    if (chunk.set == kPages) {
      chunks_[index].reset(&Whole());
      budget->left += sizeof(Chunk);
    }
    return before;
  }

  bool Make(uint64_t index, PageBudget* budget) {
    const uint64_t grown = index >= chunks_.size() ? (index + 1 - chunks_.size()) * sizeof(chunks_[0]) : 0;
    if (grown > budget->left || budget->left - grown < sizeof(Chunk)) {
      full_ = false;
      return false;
    }
    budget->left -= grown + sizeof(Chunk);
    if (grown > 0) chunks_.resize(index + 1);
    chunks_[index].reset(new Chunk());
    return true;
  }

  std::vector<std::unique_ptr<Chunk, Drop>> chunks_;
  uint64_t count_ = 0;
  bool full_ = true;
};

}  // namespace vioctl::migration
