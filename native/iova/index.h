// Which mappings there are on one side, by the addresses where they start.
#pragma once
#include <algorithm>
#include <cstdint>

#include "iova/table.h"

namespace vioctl::iova {

class Range {
 public:
  Range() = default;
  // other: the address on the other side (VA of an IOVA range and the reverse), a multiple of 16; kind: below 16.
  Range(uint64_t last, uint64_t other, uint32_t kind) : end(last), word_(other | kind) {}

  uint64_t end = 0;  // last byte
  uint64_t other() const { return word_ & ~uint64_t{15}; }
  uint32_t kind() const { return static_cast<uint32_t>(word_ & 15); }

 private:
  uint64_t word_ = 0;
};

// A set of disjoint ranges of whole pages. A hash table has them by their first page. Their order is in words of 64
// bits, in levels: a bit of level 0 is a page where a range starts, and a bit of each level above is a word of the
// level below in which any bit is set. Only such words exist, in a second table, so that a change is the same few steps
// wherever it is, and most often ends at level 0 (where ranges lie close together) or 1.
class Index {
 public:
  // page: a power of two, 16 or more; every range starts at a multiple of it and is one long.
  explicit Index(uint64_t page) : page_(page), shift_(__builtin_ctzll(page)) {}

  // A range of the set; valid until the next change.
  struct Found {
    uint64_t start = 0;
    const Range* range = nullptr;
    explicit operator bool() const { return range != nullptr; }
  };

  void Clear() { ranges_.Clear(), words_.Clear(), longest_ = 0; }
  size_t count() const { return ranges_.count(); }

  // Adds a range that touches no other.
  void Add(uint64_t start, const Range& range) {
    longest_ = std::max(longest_, range.end - start + 1);
    uint64_t at = start >> shift_;
    ranges_.Add(at) = range;
    for (int level = 0; level < kLevels; level++, at >>= 6) {
      uint64_t& word = words_.Add(Key(level, at >> 6));
      const uint64_t before = std::exchange(word, word | Bit(at));
      if (before) break;
    }
  }

  // The range that starts there, or nullptr. Valid until the next change.
  const Range* At(uint64_t start) const { return start & (page_ - 1) ? nullptr : ranges_.Find(start >> shift_); }

  // Removes a range of the set.
  void Remove(uint64_t start) {
    uint64_t at = start >> shift_;
    ranges_.Remove(at);
    if (ranges_.count() == 0) longest_ = 0;
    for (int level = 0; level < kLevels; level++, at >>= 6) {
      uint64_t* word = words_.Find(Key(level, at >> 6));
      if (*word &= ~Bit(at)) break;
      words_.Remove(Key(level, at >> 6));
    }
  }

  // The last range that starts at or below address, unless that is below `least`.
  Found UpTo(uint64_t address, uint64_t least = 0) const {
    uint64_t at = address >> shift_, low = least >> shift_;
    for (int level = 0; level < kLevels; level++) {
      const uint64_t below = Word(level, at >> 6) & (Bit(at) | (Bit(at) - 1));
      if (below) {
        const uint64_t last = at >> 6 << 6 | (63 - __builtin_clzll(below));
        return last < low ? Found{} : Down(level, last, &Last, least);
      }
      // not in this word, so in one before it
      at >>= 6, low >>= 6;
      if (at-- <= low) break;
    }
    return {};
  }

  // The first range that starts at or above address.
  Found From(uint64_t address) const {
    uint64_t at = (address >> shift_) + (address & (page_ - 1) ? 1 : 0);
    for (int level = 0; level < kLevels; level++) {
      const uint64_t above = Word(level, at >> 6) & -Bit(at);
      if (above) return Down(level, at >> 6 << 6 | __builtin_ctzll(above), &First, 0);
      at = (at >> 6) + 1;
    }
    return {};
  }

  // The first range that touches [start, end].
  Found Touching(uint64_t start, uint64_t end) const {
    Found found = UpTo(start);
    if (found && found.range->end >= start) return found;
    found = From(start);
    return found && found.start <= end ? found : Found{};
  }

  // True if any does. start is a multiple of the page size.
  bool Touches(uint64_t start, uint64_t end) const {
    if (ranges_.count() == 0) return false;
    // One that starts farther below than the longest one reaches ends below.
    const Found found = UpTo(end, start - std::min(start, longest_ - page_));
    return found && found.range->end >= start;
  }

  // A hint that a range at this start is about to be sought, added or removed.
  void Prefetch(uint64_t start) const {
    const uint64_t at = start >> shift_;
    ranges_.Prefetch(at);
    words_.Prefetch(Key(0, at >> 6));
    words_.Prefetch(Key(1, at >> 6 >> 6));
  }

 private:
  static constexpr int kLevels = 10;  // of 6 bits: 2^60 pages of 16 bytes

  static uint64_t Bit(uint64_t at) { return uint64_t{1} << (at & 63); }
  static uint64_t Key(int level, uint64_t word) { return static_cast<uint64_t>(level) << 58 | word; }
  static uint64_t First(uint64_t word) { return __builtin_ctzll(word); }
  static uint64_t Last(uint64_t word) { return 63 - __builtin_clzll(word); }

  uint64_t Word(int level, uint64_t at) const {
    const uint64_t* word = words_.Find(Key(level, at));
    return word ? *word : 0;
  }

  // The first or last range below a bit.
  Found Down(int level, uint64_t at, uint64_t (*pick)(uint64_t), uint64_t least) const {
    while (level-- > 0) at = at << 6 | pick(Word(level, at));
    return at << shift_ < least ? Found{} : Found{at << shift_, ranges_.Find(at)};
  }

  Table<Range> ranges_;
  Table<uint64_t> words_;
  uint64_t page_;
  int shift_;
  uint64_t longest_ = 0;  // no range is longer
};

}  // namespace vioctl::iova
