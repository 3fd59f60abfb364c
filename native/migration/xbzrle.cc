#include "migration/xbzrle.h"

#include <cstring>

namespace vioctl::migration {
namespace {

// A run length of one or two bytes, low seven bits first. Returns the bytes taken, 0 if there is none.
size_t Uleb(const uint8_t* at, size_t left, size_t* value) {
  if (left == 0) return 0;
  *value = at[0] & 0x7fu;
  if (!(at[0] & 0x80)) return 1;
  if (left < 2 || (at[1] & 0x80)) return 0;
  *value |= static_cast<size_t>(at[1]) << 7;
  return 2;
}

}  // namespace

bool Unxbzrle(const uint8_t* delta, size_t size, uint8_t* page, size_t page_size) {
  size_t at = 0, to = 0;
  while (at < size) {
    size_t equal, changed;
    size_t used = Uleb(delta + at, size - at, &equal);
    // Only the first run may be empty: a later one would have been part of the changed run before it.
    if (used == 0 || (at > 0 && equal == 0) || equal > page_size - to) return false;
    at += used;
    to += equal;
    used = Uleb(delta + at, size - at, &changed);
    if (used == 0 || changed == 0 || changed > page_size - to) return false;
    at += used;
    if (changed > size - at) return false;
    if (page) memcpy(page + to, delta + at, changed);
    at += changed;
    to += changed;
  }
  return true;
}

}  // namespace vioctl::migration
