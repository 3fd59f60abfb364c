// The IOVA allocator: which device addresses are free, which belong to which mapping, and where the next one goes.
// It makes no system call, so that `dma plan` and `dma map` run the same code.
#pragma once
#include <cstdint>
#include <vector>

#include "iova/gaps.h"
#include "iova/index.h"
#include "iova/shared.h"

namespace vioctl::iova {

struct Request {
  uint64_t va, size, iova;
  uint64_t align;  // power of two; 0 = by size, the largest page size that the request fills, smaller ones if need be
  uint32_t flags;
};

// What a request came to. error: 0; EINVAL: size 0 or not aligned; EOVERFLOW: wraps 2^64; EEXIST: at is the start of
// the mapping in the way (of the VA range where that is the one); EADDRNOTAVAIL: at is the first address that is not
// the device's; ENOSPC: no room; ENOENT: no such mapping.
struct Outcome {
  int error;
  uint64_t at;  // IOVA (or VA, for FindIova)
  uint64_t align;
};

struct Stats {
  uint64_t mappings, bytes, temporary, free, largest;
};

struct Mapped {
  uint64_t iova, size, va;
  uint32_t flags;
};

class Space {
 public:
  // ranges: what the IOMMU allows, any order, overlaps allowed; they are cut to whole pages of pages[0], the smallest
  // page size. pages: ascending powers of two. floor: automatic addresses stay at or above it. chunk: the unit in which
  // the temporary class takes address space.
  Space(std::vector<Extent> ranges, const std::array<uint64_t, kClasses>& pages, uint64_t floor, uint64_t chunk);

  // How many requests of a batch are looked at together by Warm().
  static constexpr size_t kAhead = 16;
  // True if Warm() saves more than it costs: what there is does not fit the nearer caches.
  bool Large() const { return by_iova_.count() + temporary_by_iova_.count() > kLarge; }
  // A hint that these addresses are about to be asked for.
  void Warm(const uint64_t* vas, size_t va_count, const uint64_t* iovas, size_t iova_count) const;

  Outcome Map(const Request& request);
  // Frees the mapping that starts at iova.
  Outcome Unmap(uint64_t iova);
  // Translation of [address, address + size) if one mapping covers all of it, else ENOENT.
  Outcome FindVa(uint64_t address, uint64_t size) const;
  Outcome FindIova(uint64_t address, uint64_t size) const;
  // Frees all temporary mappings at once, without a look at each.
  void Reset();

  Stats Measure() const;
  std::vector<Mapped> List() const;
  const std::vector<Extent>& ranges() const { return ranges_; }

 private:
  static constexpr uint64_t kLarge = 4096;  // mappings, of 120 to 240 bytes each

  enum Kind : uint32_t { kMapping, kVaMapping };

  Outcome Place(const Request& request);
  Outcome PlaceFixed(const Request& request);
  bool TakeFit(Gaps& gaps, const Request& request, uint64_t align, bool top, uint64_t* at);
  bool Grow(const Request& request, uint64_t align);
  void AddArena(uint64_t start, uint64_t end);
  void Shrink();
  bool Carve(const Extent& arena, uint64_t start, uint64_t end);

  std::array<uint64_t, kClasses> pages_;
  uint64_t floor_, chunk_;
  std::vector<Extent> ranges_;
  // Of the allowed ranges, what has no persistent mapping and is not lent to the temporary class, and what of the lent
  // space has no temporary mapping.
  Gaps free_, temporary_free_;
  std::vector<Extent> lent_;
  Index by_iova_, temporary_by_iova_;
  Index by_va_, temporary_by_va_;
  uint64_t bytes_ = 0, temporary_bytes_ = 0;
};

}  // namespace vioctl::iova
