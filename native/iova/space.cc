#include "iova/space.h"

#include <cerrno>

#include "common/assert.h"

namespace vioctl::iova {
namespace {

constexpr uint64_t kTop = UINT64_MAX;
constexpr uint64_t k4G = uint64_t{1} << 32;
// Free runs that are tried one by one for an alignment that the tree does not index before a longer run is taken.
constexpr int kTries = 32;

// The first address at or above `from` that equals phase modulo align; false if there is none below 2^64.
bool Up(uint64_t from, uint64_t align, uint64_t phase, uint64_t* at) {
  *at = from + ((phase - from) & (align - 1));
  return *at >= from;
}

// The last such address at or below `from`.
bool Down(uint64_t from, uint64_t align, uint64_t phase, uint64_t* at) {
  *at = from - ((from - phase) & (align - 1));
  return *at <= from;
}

}  // namespace

Space::Space(std::vector<Extent> ranges, const std::array<uint64_t, kClasses>& pages, uint64_t floor, uint64_t chunk)
    : pages_(pages), floor_(floor), chunk_(chunk), fixed_(pages), temporary_(pages) {
  const uint64_t page = pages_[0];
  std::sort(ranges.begin(), ranges.end(), [](const Extent& a, const Extent& b) { return a.start < b.start; });
  for (Extent range : ranges) {
    if (range.end < range.start) continue;
    // The last page below 2^64 stays out: an end of 2^64 does not fit 64 bits.
    uint64_t start;
    if (!Up(range.start, page, 0, &start)) continue;
    const uint64_t size = std::min(range.end, kTop - page) - start + 1;
    if (start > range.end || start > kTop - page || size < page) continue;
    const uint64_t end = start + size / page * page - 1;
    if (!ranges_.empty() && start <= ranges_.back().end + 1)
      ranges_.back().end = std::max(ranges_.back().end, end);
    else
      ranges_.push_back({start, end});
  }
  uint64_t next = 0;
  for (const Extent& range : ranges_) {
    if (range.start > next) fixed_.Insert(next, range.start - 1, 0, kBlocked);
    next = range.end + 1;
  }
  fixed_.Insert(next, kTop, 0, kBlocked);
  temporary_.Insert(0, kTop, 0, kBlocked);
}

void Space::Warm(const uint64_t* vas, size_t va_count, const uint64_t* iovas, size_t iova_count) const {
  Gaps::Cursor found[kAhead];
  Tree<false>::Cursor unused[kAhead];
  uint64_t others[kAhead];
  size_t count = 0;
  fixed_.Warm<kAhead>(iovas, iova_count, found);
  for (size_t i = 0; i < iova_count; i++)
    if (found[i] && found[i].range().kind() == kVaMapping) others[count++] = found[i].range().other();
  by_va_.Warm<kAhead>(others, count, unused);
  by_va_.Warm<kAhead>(vas, va_count, unused);
}

Outcome Space::Map(const Request& request) {
  const uint64_t mask = pages_[0] - 1;
  if (request.size == 0 || (request.size & mask) || (request.align & (request.align - 1))) return {EINVAL, 0, 0};
  const bool va = request.flags & kHasVa;
  if (va) {
    if (request.va & mask) return {EINVAL, 0, 0};
    const uint64_t end = request.va + request.size - 1;
    if (end < request.va) return {EOVERFLOW, 0, 0};
    if (auto c = by_va_.SeekTouching(request.va, end)) return {EEXIST, c.start(), 0};
    if (auto c = temporary_by_va_.count() ? temporary_by_va_.Touching(request.va, end) : Tree<false>::Cursor{})
      return {EEXIST, c.start(), 0};
  }
  const bool fixed = request.flags & kFixed, temporary = request.flags & kTemporary;
  if (fixed && temporary) return {EINVAL, 0, 0};
  const Outcome outcome = fixed ? PlaceFixed(request) : Place(request);
  if (outcome.error) return outcome;
  const uint64_t end = outcome.at + request.size - 1;
  VIOCTL_ASSERT((outcome.at & mask) == 0 && end >= outcome.at);
  VIOCTL_ASSERT(!(request.flags & kBelow4G) || end < k4G);
  VIOCTL_ASSERT(request.align == 0 || (outcome.at & (request.align - 1)) == 0);
  (temporary ? temporary_ : fixed_).Insert(outcome.at, end, request.va, va ? kVaMapping : kMapping);
  const uint64_t last = request.va + request.size - 1;
  if (va && temporary)
    temporary_by_va_.Insert(request.va, last, outcome.at, kMapping);
  else if (va)
    by_va_.InsertSought(request.va, last, outcome.at, kMapping);
  (temporary ? temporary_bytes_ : bytes_) += request.size;
  (temporary ? temporary_count_ : count_)++;
  return outcome;
}

Outcome Space::PlaceFixed(const Request& request) {
  if (request.iova & (std::max(request.align, pages_[0]) - 1)) return {EINVAL, 0, 0};
  const uint64_t end = request.iova + request.size - 1;
  if (end < request.iova) return {EOVERFLOW, 0, 0};
  if ((request.flags & kBelow4G) && end >= k4G) return {EADDRNOTAVAIL, k4G, 0};
  for (;;) {
    auto c = fixed_.Touching(request.iova, end);
    if (!c) return {0, request.iova, 0};
    if (c.range().kind() == kBlocked) return {EADDRNOTAVAIL, std::max(c.start(), request.iova), 0};
    if (c.range().kind() != kArena) return {EEXIST, c.start(), 0};
    const uint64_t from = std::max(c.start(), request.iova), to = std::min(c.range().end, end);
    if (!Carve(c, from, to)) return {EEXIST, temporary_.Touching(from, to).start(), 0};
  }
}

// Takes [start, end] back from an arena. False if temporary mappings are in it.
bool Space::Carve(Gaps::Cursor arena, uint64_t start, uint64_t end) {
  if (temporary_.Touching(start, end)) return false;
  const uint64_t from = arena.start(), to = arena.range().end;
  VIOCTL_ASSERT(from <= start && end <= to);
  temporary_.Insert(start, end, 0, kBlocked);
  fixed_.Erase(from);
  lent_.erase(std::find_if(lent_.begin(), lent_.end(), [from](const Extent& e) { return e.start == from; }));
  for (const Extent& rest : {Extent{from, start - 1}, Extent{end + 1, to}}) {
    if ((rest.start == from && start == from) || (rest.end == to && end == to)) continue;
    fixed_.Insert(rest.start, rest.end, 0, kArena);
    lent_.push_back(rest);
  }
  return true;
}

Outcome Space::Place(const Request& request) {
  const bool top = request.flags & kTemporary;
  for (int round = 0; round < 2; round++) {
    // Without a wish: the largest page that the request fills, then the smaller ones.
    for (int cls = kClasses - 1; cls >= 0; cls--) {
      const uint64_t align = request.align ? std::max(request.align, pages_[0]) : pages_[cls];
      if (!request.align && (align == 0 || align > request.size)) continue;
      uint64_t at;
      if (Search(top ? temporary_ : fixed_, request, align, top, &at)) return {0, at, align};
      if (top && Grow(request, align) && Search(temporary_, request, align, top, &at)) return {0, at, align};
      if (request.align) break;
    }
    // What the temporary class holds unused may be what is missing.
    if (round == 0) Shrink();
  }
  return {ENOSPC, 0, 0};
}

// First fit from the floor, or last fit from the top. With a VA the address keeps its phase: device and processor see
// the same offset within a hugepage, which the IOMMU needs to use one.
bool Space::Search(const Gaps& tree, const Request& request, uint64_t align, bool top, uint64_t* at) const {
  const uint64_t low = floor_, high = request.flags & kBelow4G ? k4G - 1 : kTop, size = request.size;
  const uint64_t phase = (request.flags & kHasVa) && !request.align ? request.va & (align - 1) : 0;
  // The best class whose runs every fit is among: exact if it is the alignment itself.
  int cls = 0;
  for (int i = 0; i < kClasses && pages_[i] && pages_[i] <= align && !(phase & (pages_[i] - 1)); i++) cls = i;
  const bool exact = pages_[cls] == align;
  int tries = 0;
  bool limited = !exact;
  auto place = [&](uint64_t first, uint64_t last) {
    if (top ? last < low : first > high) return -1;
    first = std::max(first, low), last = std::min(last, high);
    if (last >= first && last - first >= size - 1) {
      const bool fits = top ? Down(last - (size - 1), align, phase, at) && *at >= first
                            : Up(first, align, phase, at) && *at <= last && last - *at >= size - 1;
      if (fits) return 1;
    }
    return limited && ++tries == kTries ? -1 : 0;
  };
  auto search = [&](int c, uint64_t run) {
    return top ? tree.Highest(c, run, high, place) : tree.Lowest(c, run, low, place);
  };
  if (search(cls, size)) return true;
  if (exact || tries < kTries) return false;
  limited = false;
  // A run this long holds the request at any phase; only if there is none are the shorter ones tried to the end.
  if (size + align > size && search(0, size + align)) return true;
  return search(cls, size);
}

// Lends more space to the temporary class: as much again as it has, or what the request needs.
bool Space::Grow(const Request& request, uint64_t align) {
  uint64_t lent = 0;
  for (const Extent& extent : lent_) lent += extent.end - extent.start + 1;
  const uint64_t size = std::max({chunk_, lent, request.size + align});
  const Request chunk{0, size, 0, align, request.flags & kBelow4G};
  uint64_t at;
  if (size > request.size && Search(fixed_, chunk, align, true, &at)) {
    AddArena(at, at + size - 1);
    return true;
  }
  if (!Search(fixed_, request, align, true, &at)) return false;
  AddArena(at, at + request.size - 1);
  return true;
}

void Space::AddArena(uint64_t start, uint64_t end) {
  fixed_.Insert(start, end, 0, kArena);
  lent_.push_back({start, end});
  // In the temporary tree a blocked range gives way.
  while (auto c = temporary_.Touching(start, end)) {
    const uint64_t from = c.start(), to = c.range().end;
    temporary_.Erase(from);
    if (from < start) temporary_.Insert(from, start - 1, 0, kBlocked);
    if (to > end) temporary_.Insert(end + 1, to, 0, kBlocked);
  }
}

// Takes back all that no temporary mapping uses. Slow in the number of temporary mappings, and only for a space that is
// nearly full.
void Space::Shrink() {
  if (lent_.empty()) return;
  std::vector<Mapped> used;
  for (auto c = temporary_.From(0); c; c = Gaps::Next(c))
    if (c.range().kind() != kBlocked) used.push_back({c.start(), c.range().end, c.range().other(), c.range().kind()});
  for (const Extent& extent : lent_) fixed_.Erase(extent.start);
  lent_.clear();
  temporary_.Clear();
  temporary_.Insert(0, kTop, 0, kBlocked);
  for (size_t i = 0; i < used.size();) {
    size_t last = i;
    while (last + 1 < used.size() && used[last + 1].iova == used[last].size + 1) last++;
    AddArena(used[i].iova, used[last].size);
    for (; i <= last; i++) temporary_.Insert(used[i].iova, used[i].size, used[i].va, used[i].flags);
  }
}

Outcome Space::Unmap(uint64_t iova) {
  constexpr uint32_t kinds = 1u << kMapping | 1u << kVaMapping;
  Range range;
  const bool temporary = !fixed_.Erase(iova, &range, kinds);
  if (temporary && !temporary_.Erase(iova, &range, kinds)) return {ENOENT, 0, 0};
  const uint64_t size = range.end - iova + 1;
  if (range.kind() == kVaMapping) {
    const bool known = (temporary ? temporary_by_va_ : by_va_).Erase(range.other());
    VIOCTL_ASSERT(known);  // both ways of a mapping exist, or neither
  }
  VIOCTL_ASSERT((temporary ? temporary_bytes_ : bytes_) >= size && (temporary ? temporary_count_ : count_) > 0);
  (temporary ? temporary_bytes_ : bytes_) -= size;
  (temporary ? temporary_count_ : count_)--;
  return {0, iova, size};
}

Outcome Space::FindVa(uint64_t address, uint64_t size) const {
  for (const auto* tree : {&by_va_, &temporary_by_va_}) {
    auto c = tree->UpTo(address);
    if (c && address + (size - 1) >= address && address + (size - 1) <= c.range().end)
      return {0, c.range().other() + (address - c.start()), 0};
  }
  return {ENOENT, 0, 0};
}

Outcome Space::FindIova(uint64_t address, uint64_t size) const {
  for (const auto* tree : {&fixed_, &temporary_}) {
    auto c = tree->UpTo(address);
    if (c && c.range().kind() == kVaMapping && address + (size - 1) >= address && address + (size - 1) <= c.range().end)
      return {0, c.range().other() + (address - c.start()), 0};
  }
  return {ENOENT, 0, 0};
}

void Space::Reset() {
  for (const Extent& extent : lent_) fixed_.Erase(extent.start);
  lent_.clear();
  temporary_.Clear();
  temporary_.Insert(0, kTop, 0, kBlocked);
  temporary_by_va_.Clear();
  temporary_bytes_ = temporary_count_ = 0;
}

Stats Space::Measure() const {
  Stats stats{count_ + temporary_count_, bytes_ + temporary_bytes_, temporary_count_, 0, 0};
  for (const Extent& range : ranges_) stats.free += range.end - range.start + 1;
  VIOCTL_ASSERT(stats.bytes <= stats.free);
  stats.free -= stats.bytes;
  for (const Gaps* tree : {&fixed_, &temporary_}) {
    for (auto c = tree->From(0); c; c = Gaps::Next(c)) stats.largest = std::max(stats.largest, c.start() - c.gap());
  }
  return stats;
}

std::vector<Mapped> Space::List() const {
  std::vector<Mapped> list;
  for (const Gaps* tree : {&fixed_, &temporary_}) {
    for (auto c = tree->From(0); c; c = Gaps::Next(c)) {
      const Range& range = c.range();
      if (range.kind() != kMapping && range.kind() != kVaMapping) continue;
      const uint32_t flags = (tree == &temporary_ ? kTemporary : 0u) | (range.kind() == kVaMapping ? kHasVa : 0u);
      list.push_back({c.start(), range.end - c.start() + 1, range.other(), flags});
    }
  }
  return list;
}

}  // namespace vioctl::iova
