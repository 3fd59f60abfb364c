// A B+ tree of disjoint address ranges, ordered by start. With Gaps it also knows the free space before each range and
// keeps, per subtree, the longest free run for each page size, so that the lowest (or highest) place for an aligned
// request is found in one descent.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/assert.h"
#include "iova/node.h"

namespace vioctl::iova {

template <bool Gaps>
class Tree {
 public:
  struct alignas(64) Leaf {
    uint32_t count;
    uint32_t holes;  // Gaps: which ranges have free space before them
    Leaf* previous;
    Leaf* next;
    uint64_t key[kKeys];
    uint64_t gap[Gaps ? kKeys : 1];  // first free byte before the range; its start where there is none
    Range value[kKeys];
  };

  // A place in the tree; valid until the next change.
  struct Cursor {
    Leaf* leaf = nullptr;
    uint32_t at = 0;
    explicit operator bool() const { return leaf != nullptr; }
    uint64_t start() const { return leaf->key[at]; }
    const Range& range() const { return leaf->value[at]; }
    // First free byte before the range.
    uint64_t gap() const { return leaf->gap[at]; }
  };

  // sizes: page size of each class, ascending; 0 = class not used.
  explicit Tree(const std::array<uint64_t, kClasses>& sizes = {}) : sizes_(sizes) { Clear(); }

  // Forgets everything, in time that does not depend on how much there is.
  void Clear() {
    leaves_.Reset();
    inners_.Reset();
    root_ = NewLeaf();
    height_ = 0;
    count_ = 0;
  }

  size_t count() const { return count_; }

  // The first range that starts at or above address.
  Cursor From(uint64_t address) const {
    Leaf* leaf = Down(address);
    const uint32_t at = CountBelow<false>(leaf->key, leaf->count, address);
    if (at < leaf->count) return {leaf, at};
    return leaf->next ? Cursor{leaf->next, 0} : Cursor{};
  }

  // The last range that starts at or below address.
  Cursor UpTo(uint64_t address) const {
    Leaf* leaf = Down(address);
    const uint32_t at = CountBelow<true>(leaf->key, leaf->count, address);
    if (at > 0) return {leaf, at - 1};
    return leaf->previous ? Cursor{leaf->previous, leaf->previous->count - 1} : Cursor{};
  }

  static Cursor Next(Cursor c) {
    if (c.at + 1 < c.leaf->count) return {c.leaf, c.at + 1};
    return c.leaf->next ? Cursor{c.leaf->next, 0} : Cursor{};
  }

  // A hint: brings what a search for each of the addresses will read into the cache, for all of them in step, so that
  // the waits overlap. at: the last range at or below each address.
  template <size_t Most>
  void Warm(const uint64_t* addresses, size_t count, Cursor* at) const {
    Node nodes[Most];
    std::fill_n(nodes, count, root_);
    for (int h = height_; h > 0; h--) {
      for (size_t i = 0; i < count; i++) {
        const Inner* inner = static_cast<const Inner*>(nodes[i]);
        nodes[i] = inner->child[Slot(inner, addresses[i])];
        if (h > 1)
          Prefetch<9>(nodes[i]);
        else
          Prefetch<kKeyLines>(nodes[i]);
      }
    }
    for (size_t i = 0; i < count; i++) {
      Leaf* leaf = static_cast<Leaf*>(nodes[i]);
      const uint32_t below = CountBelow<true>(leaf->key, leaf->count, addresses[i]);
      at[i] = below > 0 ? Cursor{leaf, below - 1} : Cursor{};
      // a change moves what lies behind its place, and no more
      const uint32_t from = below > 0 ? below - 1 : 0;
      PrefetchBytes(leaf->value + from, leaf->value + leaf->count);
      if constexpr (Gaps) PrefetchBytes(leaf->gap + from, leaf->gap + leaf->count);
    }
  }

  // The first range that touches [start, end].
  Cursor Touching(uint64_t start, uint64_t end) const {
    Cursor c = UpTo(start);
    if (c && c.range().end >= start) return c;
    c = c ? Next(c) : From(start);
    return c && c.start() <= end ? c : Cursor{};
  }

  // Adds a range that touches no other.
  void Insert(uint64_t start, uint64_t end, uint64_t other, uint32_t kind) {
    Seek(start);
    InsertSought(start, end, other, kind);
  }

  // Touching() of a range that InsertSought() adds next if there is none, with one descent for both.
  Cursor SeekTouching(uint64_t start, uint64_t end) {
    Seek(start);
    Leaf* leaf = sought_;
    const uint32_t at = CountBelow<true>(leaf->key, leaf->count, start);
    const Cursor before = at > 0           ? Cursor{leaf, at - 1}
                          : leaf->previous ? Cursor{leaf->previous, leaf->previous->count - 1}
                                           : Cursor{};
    if (before && before.range().end >= start) return before;
    const Cursor after = at < leaf->count ? Cursor{leaf, at} : leaf->next ? Cursor{leaf->next, 0} : Cursor{};
    return after && after.start() <= end ? after : Cursor{};
  }
  void InsertSought(uint64_t start, uint64_t end, uint64_t other, uint32_t kind) {
    VIOCTL_ASSERT(start <= end);
    lost_ = won_ = {};
    Node extra = InsertLeaf(sought_, start, {end, other, kind});
    if (!extra && Gaps) {
      RenewUp();
    } else if (!extra) {
      // only below the first children of all can a range come that starts before what is known of them
      for (int h = 1; h <= height_ && start < path_[h].inner->key[0]; h++) path_[h].inner->key[0] = start;
    }
    for (int h = 1; h <= height_ && extra; h++) {
      extra = InsertChild(path_[h].inner, path_[h].at, extra, h - 1);
      if (!extra) RenewUp(h + 1);
    }
    if (extra) {
      Inner* top = NewInner();
      top->count = 2;
      Set(top, 0, root_, height_);
      Set(top, 1, extra, height_);
      root_ = top;
      height_++;
      VIOCTL_ASSERT(height_ < kDepth);
    }
    count_++;
    CarryOver();
  }

  // Removes the range that starts at start if it is of one of the kinds (a mask of 1 << kind). False: there is none.
  bool Erase(uint64_t start, Range* erased = nullptr, uint32_t kinds = ~0u) {
    Seek(start);
    lost_ = won_ = {};
    if (!EraseLeaf(sought_, start, kinds)) return false;
    if (erased) *erased = erased_;
    for (int h = 1; h <= height_; h++) {
      Inner* inner = path_[h].inner;
      const uint32_t at = path_[h].at, left = CountOf(inner->child[at], h - 1);
      if (left == 0) {
        Drop(inner, at, h - 1);
      } else if (left >= kLeaf / 4 ||
                 !((at + 1 < inner->count && Join(inner, at, h - 1)) || (at > 0 && Join(inner, at - 1, h - 1)))) {
        // nothing has moved: above here only the longest runs change
        RenewUp(h);
        break;
      }
    }
    while (height_ > 0 && static_cast<Inner*>(root_)->count == 1) {
      Inner* old = static_cast<Inner*>(root_);
      root_ = old->child[0];
      inners_.Put(old);
      height_--;
    }
    count_--;
    CarryOver();
    return true;
  }

  // The lowest free run that passes the filter for the class, in address order, for which place() says yes;
  // place(first, last) returns 1 = taken, 0 = try the next, -1 = stop. Runs below low are not visited.
  template <class Place>
  bool Lowest(int cls, uint64_t size, uint64_t low, Place place) const {
    return Ascend(root_, height_, cls, size, low, place) > 0;
  }

  // The same from the top. Runs that start above high are not visited.
  template <class Place>
  bool Highest(int cls, uint64_t size, uint64_t high, Place place) const {
    return Descend(root_, height_, cls, size, high, place) > 0;
  }

 private:
  using Node = void*;
  static constexpr uint32_t kLeaf = kKeys, kInner = kKeys;
  static constexpr size_t kKeyLines = (24 + sizeof(uint64_t[kLeaf]) + 63) / 64;  // of the cache, up to a leaf's keys
  static constexpr int kDepth = 16;  // nodes are a quarter full: 8^15 leaves

  struct NoLongest {};
  struct alignas(64) Inner {
    uint32_t count;
    uint64_t key[kInner];  // lowest start below the child
    Node child[kInner];
    uint64_t run[Gaps ? kClasses : 1][Gaps ? kInner : 1];  // longest free run below the child, by class
  };

  Leaf* NewLeaf() {
    Leaf* leaf = leaves_.Get();
    leaf->count = leaf->holes = 0;
    std::fill_n(leaf->key, kLeaf, UINT64_MAX);
    leaf->previous = leaf->next = nullptr;
    return leaf;
  }

  Inner* NewInner() {
    Inner* inner = inners_.Get();
    std::fill_n(inner->key, kInner, UINT64_MAX);
    return inner;
  }

  static uint32_t Slot(const Inner* inner, uint64_t key) {
    const uint32_t below = CountBelow<true>(inner->key, inner->count, key);
    return below - (below > 0);
  }

  static void PrefetchBytes(const void* from, const void* to) {
    for (const char* at = static_cast<const char*>(from); at < to; at += 64) __builtin_prefetch(at);
  }

  // Goes down to the leaf where the key is or would be, and keeps the way.
  void Seek(uint64_t key) {
    Node node = root_;
    for (int h = height_; h > 0; h--) {
      Inner* inner = static_cast<Inner*>(node);
      const uint32_t at = Slot(inner, key);
      path_[h] = {inner, at};
      node = inner->child[at];
    }
    sought_ = static_cast<Leaf*>(node);
  }

  // A search in a node that is not in the cache would wait for its lines one after the other: ask for all at once.
  template <size_t Lines>
  static void Prefetch(const void* node) {
    for (size_t i = 0; i < Lines; i++) __builtin_prefetch(static_cast<const char*>(node) + 64 * i);
  }

  Leaf* Down(uint64_t key) const {
    Node node = root_;
    for (int h = height_; h > 0; h--) node = static_cast<Inner*>(node)->child[Slot(static_cast<Inner*>(node), key)];
    return static_cast<Leaf*>(node);
  }

  uint64_t RunOf(uint64_t start, uint64_t gap, int cls) const {
    const uint64_t from = (gap + sizes_[cls] - 1) & ~(sizes_[cls] - 1);
    return from >= gap && from < start ? start - from : 0;
  }

  uint64_t LongestOf(Node node, int height, int cls) const {
    uint64_t longest = 0;
    if (height == 0) {
      const Leaf* leaf = static_cast<const Leaf*>(node);
      for (uint32_t holes = leaf->holes; holes; holes &= holes - 1) {
        const int i = __builtin_ctz(holes);
        longest = std::max(longest, RunOf(leaf->key[i], leaf->gap[i], cls));
      }
    } else {
      const Inner* inner = static_cast<const Inner*>(node);
      for (uint32_t i = 0; i < inner->count; i++) longest = std::max(longest, inner->run[cls][i]);
    }
    return longest;
  }

  // Notes that the free run before a range that starts at `start` begins elsewhere now.
  void Regard(uint64_t start, uint64_t before, uint64_t after) {
    if constexpr (Gaps) {
      for (int c = 0; c < kClasses && sizes_[c]; c++) {
        lost_.run[c] = std::max(lost_.run[c], RunOf(start, before, c));
        won_.run[c] = std::max(won_.run[c], RunOf(start, after, c));
      }
    }
  }

  // Brings the slots on the way up to date after a change below them, until nothing changes any more.
  void RenewUp(int from = 1) {
    for (int h = from; h <= height_ && Renew(path_[h].inner, path_[h].at, h - 1); h++) continue;
  }

  // Brings the slot of a child up to date after a change below it: a new longest run is taken over; only where the
  // longest one may have gone is the child looked at again. False: it was up to date.
  bool Renew(Inner* inner, uint32_t at, int height) {
    Node child = inner->child[at];
    const uint64_t key = height == 0 ? static_cast<Leaf*>(child)->key[0] : static_cast<Inner*>(child)->key[0];
    bool changed = std::exchange(inner->key[at], key) != key && at == 0;
    if constexpr (Gaps) {
      for (int c = 0; c < kClasses && sizes_[c]; c++) {
        uint64_t& longest = inner->run[c][at];
        const uint64_t before = longest;
        if (won_.run[c] >= longest)
          longest = won_.run[c];
        else if (lost_.run[c] == longest)
          longest = LongestOf(child, height, c);
        changed |= longest != before;
      }
    }
    return changed;
  }

  static uint32_t CountOf(Node node, int height) {
    return height == 0 ? static_cast<Leaf*>(node)->count : static_cast<Inner*>(node)->count;
  }

  void Set(Inner* inner, uint32_t at, Node child, int height) {
    inner->child[at] = child;
    inner->key[at] = height == 0 ? static_cast<Leaf*>(child)->key[0] : static_cast<Inner*>(child)->key[0];
    if constexpr (Gaps)
      for (int c = 0; c < kClasses; c++) inner->run[c][at] = sizes_[c] ? LongestOf(child, height, c) : 0;
  }

  static void MoveSlots(Inner* to, uint32_t at, Inner* from, uint32_t first, uint32_t count) {
    memmove(to->key + at, from->key + first, count * sizeof *to->key);
    memmove(to->child + at, from->child + first, count * sizeof *to->child);
    if constexpr (Gaps)
      for (int c = 0; c < kClasses; c++) memmove(to->run[c] + at, from->run[c] + first, count * sizeof **to->run);
  }
  static void MoveRanges(Leaf* to, uint32_t at, Leaf* from, uint32_t first, uint32_t count) {
    memmove(to->key + at, from->key + first, count * sizeof *to->key);
    memmove(to->value + at, from->value + first, count * sizeof *to->value);
    if constexpr (Gaps) {
      memmove(to->gap + at, from->gap + first, count * sizeof *to->gap);
      const uint64_t mask = (uint64_t{1} << count) - 1, moved = uint64_t{from->holes} >> first & mask;
      to->holes = static_cast<uint32_t>((to->holes & ~(mask << at)) | moved << at);
    }
  }

  void SetGap(Leaf* leaf, uint32_t at, uint64_t gap) {
    leaf->gap[at] = gap;
    const uint32_t bit = uint32_t{1} << at;
    leaf->holes = gap == leaf->key[at] ? leaf->holes & ~bit : leaf->holes | bit;
  }

  // Adds the right neighbour of the child at `at`. Returns the node's own where it had to be split.
  Node InsertChild(Inner* inner, uint32_t at, Node extra, int height) {
    Set(inner, at, inner->child[at], height);
    Inner* right = nullptr;
    at++;
    if (inner->count == kInner) {
      right = NewInner();
      right->count = kInner / 2;
      MoveSlots(right, 0, inner, kInner / 2, kInner / 2);
      inner->count = kInner / 2;
      std::fill_n(inner->key + inner->count, kInner - inner->count, UINT64_MAX);
      if (at > inner->count) at -= inner->count, inner = right;
    }
    MoveSlots(inner, at + 1, inner, at, inner->count - at);
    inner->count++;
    Set(inner, at, extra, height);
    return right;
  }

  // Returns the new right neighbour where the leaf had to be split.
  Node InsertLeaf(Leaf* leaf, uint64_t key, const Range& range) {
    uint32_t at = CountBelow<true>(leaf->key, leaf->count, key);
    VIOCTL_ASSERT(at == 0 || leaf->value[at - 1].end < key);
    VIOCTL_ASSERT(at == leaf->count || range.end < leaf->key[at]);
    uint64_t gap = key;
    if constexpr (Gaps) {
      // The free run before the next range is cut in two.
      if (at < leaf->count) {
        gap = leaf->gap[at];
        Regard(leaf->key[at], gap, range.end + 1);
        SetGap(leaf, at, range.end + 1);
      } else {
        gap = at > 0 ? leaf->value[at - 1].end + 1 : 0;
        if (leaf->next) Carry(leaf->next->key[0], range.end + 1);
      }
      Regard(key, key, gap);
    }
    Leaf* right = nullptr;
    if (leaf->count == kLeaf) {
      right = NewLeaf();
      // Ascending insertions leave full leaves behind them.
      const uint32_t keep = at == kLeaf && !leaf->next ? kLeaf - 1 : kLeaf / 2;
      right->count = kLeaf - keep;
      MoveRanges(right, 0, leaf, keep, kLeaf - keep);
      leaf->count = keep;
      Trim(leaf, kLeaf - keep);
      right->next = leaf->next;
      right->previous = leaf;
      if (right->next) right->next->previous = right;
      leaf->next = right;
      if (at > keep) at -= keep, leaf = right;
    }
    MoveRanges(leaf, at + 1, leaf, at, leaf->count - at);
    leaf->key[at] = key;
    leaf->value[at] = range;
    leaf->count++;
    if constexpr (Gaps) SetGap(leaf, at, gap);
    return right;
  }

  // Forgets the ranges that have left the end of a leaf.
  static void Trim(Leaf* leaf, uint32_t gone) {
    std::fill_n(leaf->key + leaf->count, gone, UINT64_MAX);
    leaf->holes &= static_cast<uint32_t>((uint64_t{1} << leaf->count) - 1);
  }

  bool EraseLeaf(Leaf* leaf, uint64_t key, uint32_t kinds) {
    const uint32_t at = CountBelow<false>(leaf->key, leaf->count, key);
    if (at == leaf->count || leaf->key[at] != key || !(kinds >> leaf->value[at].kind() & 1)) return false;
    erased_ = leaf->value[at];
    if constexpr (Gaps) {
      // The free runs on both sides become one.
      const uint64_t gap = leaf->gap[at];
      Regard(key, gap, key);
      if (at + 1 < leaf->count) {
        Regard(leaf->key[at + 1], leaf->gap[at + 1], gap);
        SetGap(leaf, at + 1, gap);
      } else if (leaf->next) {
        Carry(leaf->next->key[0], gap);
      }
    }
    leaf->count--;
    MoveRanges(leaf, at, leaf, at + 1, leaf->count - at);
    Trim(leaf, 1);
    return true;
  }

  void Free(Node node, int height) {
    if (height > 0) return inners_.Put(static_cast<Inner*>(node));
    Leaf* leaf = static_cast<Leaf*>(node);
    if (leaf->previous) leaf->previous->next = leaf->next;
    if (leaf->next) leaf->next->previous = leaf->previous;
    leaves_.Put(leaf);
  }

  void Drop(Inner* inner, uint32_t at, int height) {
    Free(inner->child[at], height);
    inner->count--;
    MoveSlots(inner, at, inner, at + 1, inner->count - at);
    inner->key[inner->count] = UINT64_MAX;
  }

  // Moves the child behind `at` into the one at `at` if the two fill no more than three quarters of a node.
  bool Join(Inner* inner, uint32_t at, int height) {
    Node left = inner->child[at], right = inner->child[at + 1];
    const uint32_t a = CountOf(left, height), b = CountOf(right, height);
    if (a + b > kLeaf * 3 / 4) return false;
    if (height == 0) {
      MoveRanges(static_cast<Leaf*>(left), a, static_cast<Leaf*>(right), 0, b);
      static_cast<Leaf*>(left)->count += b;
    } else {
      MoveSlots(static_cast<Inner*>(left), a, static_cast<Inner*>(right), 0, b);
      static_cast<Inner*>(left)->count += b;
    }
    Drop(inner, at + 1, height);
    Set(inner, at, left, height);
    return true;
  }

  // A change at the end of a leaf moves the start of the free run before the next leaf's first range; that leaf may be
  // below other nodes, so it is done in a second descent.
  void Carry(uint64_t key, uint64_t gap) { carry_ = true, carry_key_ = key, carry_gap_ = gap; }
  void CarryOver() {
    if constexpr (Gaps) {
      if (!std::exchange(carry_, false)) return;
      lost_ = won_ = {};
      Seek(carry_key_);
      const uint32_t at = CountBelow<false>(sought_->key, sought_->count, carry_key_);
      Regard(carry_key_, sought_->gap[at], carry_gap_);
      SetGap(sought_, at, carry_gap_);
      RenewUp();
    }
  }

  template <class Place>
  int Ascend(Node node, int height, int cls, uint64_t size, uint64_t low, Place& place) const {
    if (height == 0) {
      const Leaf* leaf = static_cast<const Leaf*>(node);
      for (uint32_t holes = leaf->holes; holes; holes &= holes - 1) {
        const int i = __builtin_ctz(holes);
        if (leaf->key[i] <= low || RunOf(leaf->key[i], leaf->gap[i], cls) < size) continue;
        if (int verdict = place(leaf->gap[i], leaf->key[i] - 1)) return verdict;
      }
      return 0;
    }
    const Inner* inner = static_cast<const Inner*>(node);
    for (uint32_t i = 0; i < inner->count; i++) {
      if (inner->run[cls][i] < size) continue;
      if (i + 1 < inner->count && inner->key[i + 1] <= low) continue;
      if (int verdict = Ascend(inner->child[i], height - 1, cls, size, low, place)) return verdict;
    }
    return 0;
  }

  template <class Place>
  int Descend(Node node, int height, int cls, uint64_t size, uint64_t high, Place& place) const {
    if (height == 0) {
      const Leaf* leaf = static_cast<const Leaf*>(node);
      for (uint32_t holes = leaf->holes; holes;) {
        const int i = 31 - __builtin_clz(holes);
        holes ^= uint32_t{1} << i;
        if (leaf->gap[i] > high || RunOf(leaf->key[i], leaf->gap[i], cls) < size) continue;
        if (int verdict = place(leaf->gap[i], leaf->key[i] - 1)) return verdict;
      }
      return 0;
    }
    const Inner* inner = static_cast<const Inner*>(node);
    for (uint32_t i = inner->count; i-- > 0;) {
      if (inner->run[cls][i] < size) continue;
      // The runs below child i start behind the first range of the child before it.
      if (i > 0 && inner->key[i - 1] > high) continue;
      if (int verdict = Descend(inner->child[i], height - 1, cls, size, high, place)) return verdict;
    }
    return 0;
  }

  std::array<uint64_t, kClasses> sizes_;
  Longest lost_, won_;  // of the change that is going on
  Pool<Leaf> leaves_;
  Pool<Inner> inners_;
  Node root_ = nullptr;
  int height_ = 0;
  struct Step {
    Inner* inner;
    uint32_t at;
  };
  std::array<Step, kDepth> path_;  // the inner nodes to sought_, by their height
  Leaf* sought_ = nullptr;
  size_t count_ = 0;
  bool carry_ = false;
  Range erased_{};
  uint64_t carry_key_ = 0, carry_gap_ = 0;
};

}  // namespace vioctl::iova
