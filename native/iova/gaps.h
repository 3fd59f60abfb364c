// The free runs of an address space: a B+ tree that gives the lowest (or highest) place for an aligned request in one
// descent. It knows nothing of what is not free, so it is small where mappings lie close together.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "common/assert.h"
#include "iova/node.h"

namespace vioctl::iova {

// Page sizes for which subtrees know their longest run; x86 has three (4 KiB, 2 MiB, 1 GiB).
constexpr int kClasses = 4;

// First and last byte of a run of addresses.
struct Extent {
  uint64_t start, end;
};

class Gaps {
 public:
  // sizes: page size of each class, ascending; 0 = class not used. floor: searches ignore what lies below it.
  Gaps(const std::array<uint64_t, kClasses>& sizes, uint64_t floor) : sizes_(sizes), floor_(floor) { Clear(); }

  // Forgets everything, in time that does not depend on how much there is.
  void Clear() {
    leaves_.Reset();
    inners_.Reset();
    root_ = NewLeaf();
    height_ = 0;
  }

  // The last run that starts at or below address; false: there is none.
  bool UpTo(uint64_t address, Extent* run) const {
    const Leaf* leaf = static_cast<const Leaf*>(root_);
    for (int h = height_; h > 0; h--) {
      const Inner* inner = reinterpret_cast<const Inner*>(leaf);
      leaf = static_cast<const Leaf*>(inner->child[Slot(inner, address)]);
    }
    const uint32_t at = CountUpTo(leaf->key, leaf->count, address);
    if (at == 0) return false;
    *run = {leaf->key[at - 1], leaf->end[at - 1]};
    return true;
  }

  // Makes [start, end] free, none of which is. It becomes one run with the free runs that it touches.
  void Give(uint64_t start, uint64_t end) {
    uint32_t at = Seek(start);
    if (at == leaf_->count && leaf_->next && leaf_->next->key[0] == end + 1) {
      end = leaf_->next->end[0];
      const uint32_t next = Seek(leaf_->next->key[0]);
      Remove(next - 1);
      at = Seek(start);
    }
    VIOCTL_ASSERT(start <= end && (at == 0 || leaf_->end[at - 1] < start));
    VIOCTL_ASSERT(at == leaf_->count || end < leaf_->key[at]);
    const bool before = at > 0 && leaf_->end[at - 1] + 1 == start;
    const bool behind = at < leaf_->count && leaf_->key[at] == end + 1;
    if (before) {
      leaf_->end[at - 1] = behind ? leaf_->end[at] : end;
      Raise(leaf_->key[at - 1], leaf_->end[at - 1]);
      if (behind) Remove(at);
    } else if (behind) {
      Raise(start, leaf_->end[at]);
      Move(at, start);
    } else {
      Add(at, start, end);
    }
  }

  // Takes [start, end] out of the free run that holds it.
  void Take(uint64_t start, uint64_t end) {
    const uint32_t at = Seek(start);
    VIOCTL_ASSERT(at > 0);
    TakeFrom(at - 1, start, end);
  }

  // Takes a part of the lowest free run that is long enough when its start is rounded up to the page size of the class,
  // and for which place() says yes; place(run, &part) returns 1 = take the part, 0 = try the next, -1 = stop. False:
  // nothing is taken.
  template <class Place>
  bool TakeLowest(int cls, uint64_t size, Place place) {
    return Ascend(root_, height_, cls, size, place) > 0;
  }

  // The same from the top. Runs that start above high are passed over.
  template <class Place>
  bool TakeHighest(int cls, uint64_t size, uint64_t high, Place place) {
    return Descend(root_, height_, cls, size, high, place) > 0;
  }

  // Every run, by address.
  template <class Visit>
  void Each(Visit visit) const {
    Node node = root_;
    for (int h = height_; h > 0; h--) node = static_cast<const Inner*>(node)->child[0];
    for (const Leaf* leaf = static_cast<const Leaf*>(node); leaf; leaf = leaf->next)
      for (uint32_t i = 0; i < leaf->count; i++) visit(Extent{leaf->key[i], leaf->end[i]});
  }

 private:
  using Node = void*;
  static constexpr int kDepth = 20;  // a leaf has one run or more, an inner node eight children: 8^19 runs

  struct alignas(64) Leaf {
    uint32_t count;
    uint64_t key[kKeys];  // first byte of the run
    uint64_t end[kKeys];
    Leaf* previous;
    Leaf* next;
  };

  struct alignas(64) Inner {
    uint32_t count;
    uint64_t key[kKeys];  // first byte of the first run below the child
    Node child[kKeys];
    // No run below the child is longer than this, by class. Taking a run leaves it as it is; a search that has found
    // less lowers it.
    uint64_t run[kClasses][kKeys];
  };

  Leaf* NewLeaf() {
    Leaf* leaf = leaves_.Get();
    leaf->count = 0;
    std::fill_n(leaf->key, kKeys, UINT64_MAX);
    leaf->previous = leaf->next = nullptr;
    return leaf;
  }

  Inner* NewInner() {
    Inner* inner = inners_.Get();
    std::fill_n(inner->key, kKeys, UINT64_MAX);
    return inner;
  }

  static uint32_t Slot(const Inner* inner, uint64_t key) {
    const uint32_t below = CountUpTo(inner->key, inner->count, key);
    return below - (below > 0);
  }

  // Goes down to the leaf where the key is or would be, and keeps the way. Returns how many of its runs start at or
  // below the key; only below all runs is it none.
  uint32_t Seek(uint64_t key) {
    Node node = root_;
    for (int h = height_; h > 0; h--) {
      Inner* inner = static_cast<Inner*>(node);
      const uint32_t at = Slot(inner, key);
      path_[h] = {inner, at};
      node = inner->child[at];
    }
    leaf_ = static_cast<Leaf*>(node);
    return CountUpTo(leaf_->key, leaf_->count, key);
  }

  uint64_t RunOf(uint64_t start, uint64_t end, int cls) const {
    const uint64_t from = std::max(start, floor_);
    if (end < from) return 0;
    const uint64_t size = end - from + 1;
    return size - std::min(size, -from & (sizes_[cls] - 1));
  }

  uint64_t LongestOf(Node node, int height, int cls) const {
    uint64_t longest = 0;
    if (height == 0) {
      const Leaf* leaf = static_cast<const Leaf*>(node);
      for (uint32_t i = 0; i < leaf->count; i++) longest = std::max(longest, RunOf(leaf->key[i], leaf->end[i], cls));
    } else {
      const Inner* inner = static_cast<const Inner*>(node);
      for (uint32_t i = 0; i < inner->count; i++) longest = std::max(longest, inner->run[cls][i]);
    }
    return longest;
  }

  // Tells the nodes on the way of a run that has come or grown.
  void Raise(uint64_t start, uint64_t end) {
    bool raised = true;
    for (int h = 1; h <= height_ && raised; h++) {
      raised = false;
      for (int c = 0; c < kClasses && sizes_[c]; c++) {
        uint64_t& longest = path_[h].inner->run[c][path_[h].at];
        const uint64_t run = RunOf(start, end, c);
        if (run > longest) longest = run, raised = true;
      }
    }
  }

  // Tells the nodes on the way, from this height, that the first run below them starts elsewhere.
  void Rekey(uint64_t key, int from = 1) {
    for (int h = from; h <= height_; h++) {
      path_[h].inner->key[path_[h].at] = key;
      if (path_[h].at > 0) break;
    }
  }

  // Takes [start, end] out of a run of leaf_.
  void TakeFrom(uint32_t at, uint64_t start, uint64_t end) {
    const uint64_t first = leaf_->key[at], last = leaf_->end[at];
    VIOCTL_ASSERT(first <= start && start <= end && end <= last);
    if (first < start) {
      leaf_->end[at] = start - 1;
      if (end < last) Add(at + 1, end + 1, last);
    } else if (end < last) {
      Move(at, end + 1);
    } else {
      Remove(at);
    }
  }

  void Move(uint32_t at, uint64_t start) {
    leaf_->key[at] = start;
    if (at == 0) Rekey(start);
  }

  static uint32_t CountOf(Node node, int height) {
    return height == 0 ? static_cast<Leaf*>(node)->count : static_cast<Inner*>(node)->count;
  }

  static void MoveRuns(Leaf* to, uint32_t at, const Leaf* from, uint32_t first, uint32_t count) {
    memmove(to->key + at, from->key + first, count * sizeof *to->key);
    memmove(to->end + at, from->end + first, count * sizeof *to->end);
  }
  static void MoveSlots(Inner* to, uint32_t at, const Inner* from, uint32_t first, uint32_t count) {
    memmove(to->key + at, from->key + first, count * sizeof *to->key);
    memmove(to->child + at, from->child + first, count * sizeof *to->child);
    for (int c = 0; c < kClasses; c++) memmove(to->run[c] + at, from->run[c] + first, count * sizeof **to->run);
  }
  // Forgets what has left the end of a node.
  template <class T>
  static void Cut(T* node, uint32_t count) {
    std::fill_n(node->key + count, node->count - count, UINT64_MAX);
    node->count = count;
  }

  // Adds a run at a place of the leaf that was sought.
  void Add(uint32_t at, uint64_t start, uint64_t end) {
    Raise(start, end);
    if (at == 0) Rekey(start);
    Leaf* leaf = leaf_;
    Leaf* right = nullptr;
    if (leaf->count == kKeys) {
      right = NewLeaf();
      // Ascending runs leave full leaves behind them.
      const uint32_t keep = at + 1 >= kKeys ? kKeys - 1 : kKeys / 2;
      MoveRuns(right, 0, leaf, keep, kKeys - keep);
      right->count = kKeys - keep;
      Cut(leaf, keep);
      right->next = leaf->next;
      right->previous = leaf;
      if (right->next) right->next->previous = right;
      leaf->next = right;
      if (at > keep) at -= keep, leaf = right;
    }
    MoveRuns(leaf, at + 1, leaf, at, leaf->count - at);
    leaf->key[at] = start;
    leaf->end[at] = end;
    leaf->count++;
    Node extra = right;
    for (int h = 1; h <= height_ && extra; h++) extra = AddChild(path_[h].inner, path_[h].at, extra, h - 1);
    if (!extra) return;
    Inner* top = NewInner();
    top->count = 2;
    Set(top, 0, root_, height_);
    Set(top, 1, extra, height_);
    root_ = top;
    height_++;
    VIOCTL_ASSERT(height_ < kDepth);
  }

  void Set(Inner* inner, uint32_t at, Node child, int height) {
    inner->child[at] = child;
    inner->key[at] = height == 0 ? static_cast<Leaf*>(child)->key[0] : static_cast<Inner*>(child)->key[0];
    for (int c = 0; c < kClasses; c++) inner->run[c][at] = sizes_[c] ? LongestOf(child, height, c) : 0;
  }

  // Adds the right neighbour of the child at `at`. Returns the node's own where it had to be split.
  Node AddChild(Inner* inner, uint32_t at, Node extra, int height) {
    Set(inner, at, inner->child[at], height);
    Inner* right = nullptr;
    at++;
    if (inner->count == kKeys) {
      right = NewInner();
      right->count = kKeys / 2;
      MoveSlots(right, 0, inner, kKeys / 2, kKeys / 2);
      Cut(inner, kKeys / 2);
      if (at > inner->count) at -= inner->count, inner = right;
    }
    MoveSlots(inner, at + 1, inner, at, inner->count - at);
    inner->count++;
    Set(inner, at, extra, height);
    return right;
  }

  // Removes a run of the leaf that was sought.
  void Remove(uint32_t at) {
    MoveRuns(leaf_, at, leaf_, at + 1, leaf_->count - at - 1);
    Cut(leaf_, leaf_->count - 1);
    if (at == 0) Rekey(leaf_->key[0]);
    for (int h = 1; h <= height_; h++) {
      auto [inner, slot] = path_[h];
      const uint32_t left = CountOf(inner->child[slot], h - 1);
      if (left == 0) {
        Drop(inner, slot, h - 1);
        if (slot == 0) Rekey(inner->key[0], h + 1);
      } else if (left >= kKeys / 4 || !((slot + 1 < inner->count && Join(inner, slot, h - 1)) ||
                                        (slot > 0 && Join(inner, slot - 1, h - 1)))) {
        break;
      }
    }
    while (height_ > 0 && static_cast<Inner*>(root_)->count == 1) {
      Inner* old = static_cast<Inner*>(root_);
      root_ = old->child[0];
      inners_.Put(old);
      height_--;
    }
  }

  void Drop(Inner* inner, uint32_t at, int height) {
    if (height > 0) {
      inners_.Put(static_cast<Inner*>(inner->child[at]));
    } else {
      Leaf* leaf = static_cast<Leaf*>(inner->child[at]);
      if (leaf->previous) leaf->previous->next = leaf->next;
      if (leaf->next) leaf->next->previous = leaf->previous;
      leaves_.Put(leaf);
    }
    MoveSlots(inner, at, inner, at + 1, inner->count - at - 1);
    Cut(inner, inner->count - 1);
  }

  // Moves what is in the child behind `at` into the one at `at` if that fills no more than three quarters of a node.
  bool Join(Inner* inner, uint32_t at, int height) {
    Node left = inner->child[at], right = inner->child[at + 1];
    const uint32_t a = CountOf(left, height), b = CountOf(right, height);
    if (a + b > kKeys * 3 / 4) return false;
    if (height == 0) {
      MoveRuns(static_cast<Leaf*>(left), a, static_cast<Leaf*>(right), 0, b);
      static_cast<Leaf*>(left)->count += b;
    } else {
      MoveSlots(static_cast<Inner*>(left), a, static_cast<Inner*>(right), 0, b);
      static_cast<Inner*>(left)->count += b;
    }
    for (auto& run : inner->run) run[at] = std::max(run[at], run[at + 1]);
    Drop(inner, at + 1, height);
    return true;
  }

  template <class Place>
  int Ascend(Node node, int height, int cls, uint64_t size, Place& place) {
    if (height == 0) {
      leaf_ = static_cast<Leaf*>(node);
      for (uint32_t i = 0; i < leaf_->count; i++) {
        if (leaf_->end[i] - leaf_->key[i] < size - 1) continue;  // most of them
        if (RunOf(leaf_->key[i], leaf_->end[i], cls) < size) continue;
        Extent part;
        const int verdict = place({leaf_->key[i], leaf_->end[i]}, &part);
        if (verdict > 0) TakeFrom(i, part.start, part.end);
        if (verdict) return verdict;
      }
      return 0;
    }
    Inner* inner = static_cast<Inner*>(node);
    const uint64_t* run = inner->run[cls];
    for (uint32_t i = 0; i < inner->count; i++) {
      // Four at a time, with one branch: most of them are too short.
      while (i + 4 < inner->count && (run[i] < size) & (run[i + 1] < size) & (run[i + 2] < size) & (run[i + 3] < size))
        i += 4;
      if (run[i] < size) continue;
      path_[height] = {inner, i};
      if (int verdict = Ascend(inner->child[i], height - 1, cls, size, place)) return verdict;
      inner->run[cls][i] = LongestOf(inner->child[i], height - 1, cls);
    }
    return 0;
  }

  template <class Place>
  int Descend(Node node, int height, int cls, uint64_t size, uint64_t high, Place& place) {
    if (height == 0) {
      leaf_ = static_cast<Leaf*>(node);
      for (uint32_t i = leaf_->count; i-- > 0;) {
        if (RunOf(leaf_->key[i], leaf_->end[i], cls) < size || leaf_->key[i] > high) continue;
        Extent part;
        const int verdict = place({leaf_->key[i], leaf_->end[i]}, &part);
        if (verdict > 0) TakeFrom(i, part.start, part.end);
        if (verdict) return verdict;
      }
      return 0;
    }
    Inner* inner = static_cast<Inner*>(node);
    for (uint32_t i = inner->count; i-- > 0;) {
      if (inner->run[cls][i] < size || inner->key[i] > high) continue;
      path_[height] = {inner, i};
      if (int verdict = Descend(inner->child[i], height - 1, cls, size, high, place)) return verdict;
      inner->run[cls][i] = LongestOf(inner->child[i], height - 1, cls);
    }
    return 0;
  }

  std::array<uint64_t, kClasses> sizes_;
  uint64_t floor_;
  Pool<Leaf> leaves_;
  Pool<Inner> inners_;
  Node root_ = nullptr;
  int height_ = 0;
  struct Step {
    Inner* inner;
    uint32_t at;
  };
  // Of the last seek or search: the inner nodes to leaf_, by their height.
  std::array<Step, kDepth> path_;
  Leaf* leaf_ = nullptr;
};

}  // namespace vioctl::iova
