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
    : pages_(pages),
      floor_(floor),
      chunk_(chunk),
      free_(pages, floor),
      temporary_free_(pages, floor),
      by_iova_(pages[0]),
      temporary_by_iova_(pages[0]),
      by_va_(pages[0]),
      temporary_by_va_(pages[0]) {
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
  for (const Extent& range : ranges_) free_.Give(range.start, range.end);
}

void Space::Warm(const uint64_t* vas, size_t va_count, const uint64_t* iovas, size_t iova_count) const {
  for (size_t i = 0; i < iova_count; i++) by_iova_.Prefetch(iovas[i]);
  for (size_t i = 0; i < va_count; i++) by_va_.Prefetch(vas[i]);
  for (size_t i = 0; i < iova_count; i++) {
    const Range* range = by_iova_.At(iovas[i]);
    if (range && range->kind() == kVaMapping) by_va_.Prefetch(range->other());
  }
}

Outcome Space::Map(const Request& request) {
  const uint64_t mask = pages_[0] - 1;
  if (request.size == 0 || (request.size & mask) || (request.align & (request.align - 1))) return {EINVAL, 0, 0};
  const bool va = request.flags & kHasVa;
  if (va) {
    if (request.va & mask) return {EINVAL, 0, 0};
    const uint64_t end = request.va + request.size - 1;
    if (end < request.va) return {EOVERFLOW, 0, 0};
    for (const Index* index : {&by_va_, &temporary_by_va_})
      if (index->Touches(request.va, end)) return {EEXIST, index->Touching(request.va, end).start, 0};
  }
  const bool fixed = request.flags & kFixed, temporary = request.flags & kTemporary;
  if (fixed && temporary) return {EINVAL, 0, 0};
  const Outcome outcome = fixed ? PlaceFixed(request) : Place(request);
  if (outcome.error) return outcome;
  const uint64_t end = outcome.at + request.size - 1;
  VIOCTL_ASSERT((outcome.at & mask) == 0 && end >= outcome.at);
  VIOCTL_ASSERT(!(request.flags & kBelow4G) || end < k4G);
  VIOCTL_ASSERT(request.align == 0 || (outcome.at & (request.align - 1)) == 0);
  const uint32_t kind = va ? kVaMapping : kMapping;
  const uint64_t other = va ? request.va : 0;
  (temporary ? temporary_by_iova_ : by_iova_).Add(outcome.at, {end, other, kind});
  if (va) (temporary ? temporary_by_va_ : by_va_).Add(other, {other + request.size - 1, outcome.at, kMapping});
  (temporary ? temporary_bytes_ : bytes_) += request.size;
  return outcome;
}

Outcome Space::PlaceFixed(const Request& request) {
  if (request.iova & (std::max(request.align, pages_[0]) - 1)) return {EINVAL, 0, 0};
  const uint64_t end = request.iova + request.size - 1;
  if (end < request.iova) return {EOVERFLOW, 0, 0};
  if ((request.flags & kBelow4G) && end >= k4G) return {EADDRNOTAVAIL, k4G, 0};
  for (;;) {
    // the first address that is not free
    uint64_t at = request.iova;
    Extent run;
    if (free_.UpTo(at, &run) && run.end >= at) {
      if (run.end >= end) {
        free_.Take(at, end);
        return {0, at, 0};
      }
      at = run.end + 1;
    }
    if (auto found = by_iova_.Touching(at, at)) return {EEXIST, found.start, 0};
    const auto arena =
        std::find_if(lent_.begin(), lent_.end(), [at](const Extent& e) { return e.start <= at && at <= e.end; });
    if (arena == lent_.end()) return {EADDRNOTAVAIL, at, 0};
    const uint64_t to = std::min(arena->end, end);
    if (!Carve(*arena, at, to)) return {EEXIST, temporary_by_iova_.Touching(at, to).start, 0};
  }
}

// Takes [start, end] back from an arena. False if temporary mappings are in it.
bool Space::Carve(const Extent& arena, uint64_t start, uint64_t end) {
  if (temporary_by_iova_.Touches(start, end)) return false;
  const auto [from, to] = arena;
  VIOCTL_ASSERT(from <= start && end <= to);
  temporary_free_.Take(start, end);
  free_.Give(start, end);
  lent_.erase(std::find_if(lent_.begin(), lent_.end(), [from](const Extent& e) { return e.start == from; }));
  if (from < start) lent_.push_back({from, start - 1});
  if (end < to) lent_.push_back({end + 1, to});
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
      if (TakeFit(top ? temporary_free_ : free_, request, align, top, &at)) return {0, at, align};
      if (top && Grow(request, align) && TakeFit(temporary_free_, request, align, top, &at)) return {0, at, align};
      if (request.align) break;
    }
    // What the temporary class holds unused may be what is missing.
    if (round == 0) Shrink();
  }
  return {ENOSPC, 0, 0};
}

// Takes the first fit from the floor, or the last fit from the top. With a VA the address keeps its phase: device and
// processor see the same offset within a hugepage, which the IOMMU needs to use one.
bool Space::TakeFit(Gaps& gaps, const Request& request, uint64_t align, bool top, uint64_t* at) {
  const uint64_t low = floor_, high = request.flags & kBelow4G ? k4G - 1 : kTop, size = request.size;
  const uint64_t phase = (request.flags & kHasVa) && !request.align ? request.va & (align - 1) : 0;
  // The best class whose runs every fit is among: exact if it is the alignment itself.
  int cls = 0;
  for (int i = 0; i < kClasses && pages_[i] && pages_[i] <= align && !(phase & (pages_[i] - 1)); i++) cls = i;
  const bool exact = pages_[cls] == align;
  int tries = 0;
  bool limited = !exact;
  auto place = [&](const Extent& run, Extent* part) {
    if (top ? run.end < low : run.start > high) return -1;
    const uint64_t first = std::max(run.start, low), last = std::min(run.end, high);
    if (last >= first && last - first >= size - 1) {
      const bool fits = top ? Down(last - (size - 1), align, phase, at) && *at >= first
                            : Up(first, align, phase, at) && *at <= last && last - *at >= size - 1;
      *part = {*at, *at + (size - 1)};
      if (fits) return 1;
    }
    return limited && ++tries == kTries ? -1 : 0;
  };
  auto search = [&](int c, uint64_t run) {
    return top ? gaps.TakeHighest(c, run, high, place) : gaps.TakeLowest(c, run, place);
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
  if (size > request.size && TakeFit(free_, chunk, align, true, &at)) {
    AddArena(at, at + size - 1);
    return true;
  }
  if (!TakeFit(free_, request, align, true, &at)) return false;
  AddArena(at, at + request.size - 1);
  return true;
}

void Space::AddArena(uint64_t start, uint64_t end) {
  lent_.push_back({start, end});
  temporary_free_.Give(start, end);
}

// Takes back all that no temporary mapping uses. Slow in the number of temporary mappings, and only for a space that is
// nearly full.
void Space::Shrink() {
  if (lent_.empty()) return;
  temporary_free_.Each([this](const Extent& run) { free_.Give(run.start, run.end); });
  temporary_free_.Clear();
  lent_.clear();
  for (auto found = temporary_by_iova_.From(0); found; found = temporary_by_iova_.From(found.range->end)) {
    if (lent_.empty() || lent_.back().end + 1 != found.start)
      lent_.push_back({found.start, found.range->end});
    else
      lent_.back().end = found.range->end;
  }
}

Outcome Space::Unmap(uint64_t iova) {
  const Range* found = by_iova_.At(iova);
  const bool temporary = !found;
  if (temporary) found = temporary_by_iova_.At(iova);
  if (!found) return {ENOENT, 0, 0};
  const Range range = *found;
  const uint64_t size = range.end - iova + 1;
  (temporary ? temporary_by_iova_ : by_iova_).Remove(iova);
  (temporary ? temporary_free_ : free_).Give(iova, range.end);
  if (range.kind() == kVaMapping) (temporary ? temporary_by_va_ : by_va_).Remove(range.other());
  VIOCTL_ASSERT((temporary ? temporary_bytes_ : bytes_) >= size);
  (temporary ? temporary_bytes_ : bytes_) -= size;
  return {0, iova, size};
}

Outcome Space::FindVa(uint64_t address, uint64_t size) const {
  for (const Index* index : {&by_va_, &temporary_by_va_}) {
    const auto found = index->UpTo(address);
    if (found && address + (size - 1) >= address && address + (size - 1) <= found.range->end)
      return {0, found.range->other() + (address - found.start), 0};
  }
  return {ENOENT, 0, 0};
}

Outcome Space::FindIova(uint64_t address, uint64_t size) const {
  for (const Index* index : {&by_iova_, &temporary_by_iova_}) {
    const auto found = index->UpTo(address);
    if (found && found.range->kind() == kVaMapping && address + (size - 1) >= address &&
        address + (size - 1) <= found.range->end)
      return {0, found.range->other() + (address - found.start), 0};
  }
  return {ENOENT, 0, 0};
}

void Space::Reset() {
  temporary_free_.Clear();
  for (const Extent& extent : lent_) free_.Give(extent.start, extent.end);
  lent_.clear();
  temporary_by_iova_.Clear();
  temporary_by_va_.Clear();
  temporary_bytes_ = 0;
}

Stats Space::Measure() const {
  const uint64_t temporary = temporary_by_iova_.count();
  Stats stats{by_iova_.count() + temporary, bytes_ + temporary_bytes_, temporary, 0, 0};
  for (const Extent& range : ranges_) stats.free += range.end - range.start + 1;
  VIOCTL_ASSERT(stats.bytes <= stats.free);
  stats.free -= stats.bytes;
  for (const Gaps* gaps : {&free_, &temporary_free_})
    gaps->Each([&stats](const Extent& run) { stats.largest = std::max(stats.largest, run.end - run.start + 1); });
  return stats;
}

std::vector<Mapped> Space::List() const {
  std::vector<Mapped> list;
  for (const Index* index : {&by_iova_, &temporary_by_iova_}) {
    for (auto found = index->From(0); found; found = index->From(found.range->end)) {
      const Range& range = *found.range;
      const uint32_t flags =
          (index == &temporary_by_iova_ ? kTemporary : 0u) | (range.kind() == kVaMapping ? kHasVa : 0u);
      list.push_back({found.start, range.end - found.start + 1, range.other(), flags});
    }
  }
  return list;
}

}  // namespace vioctl::iova
