// XBZRLE (QEMU docs/devel/migration: "XBZRLE"): a page as its difference from the page's present content.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vioctl::migration {

// Applies a delta of size bytes to a page: {uleb128 equal run, uleb128 changed run, changed bytes}*. With page null the
// delta is only checked. Returns false when a run passes the page or the delta ends inside a run.
bool Unxbzrle(const uint8_t* delta, size_t size, uint8_t* page, size_t page_size);

}  // namespace vioctl::migration
