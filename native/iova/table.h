// A hash table of 64-bit keys.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace vioctl::iova {

// Places are in groups of seven. A group's tags are one byte of the hash of each of its keys, compared all at once: a
// branch for each place on the way to a key would cost more than all else here. A key whose group is full goes to the
// next one. A group counts the keys that went past it, so that nothing has to move when a key is removed.
template <class Value>
class Table {
 public:
  Table() { Clear(); }

  void Clear() { count_ = 0, Allocate(kLeast); }
  size_t count() const { return count_; }

  // nullptr: it is not there. Valid until the next change.
  Value* Find(uint64_t key) const {
    const size_t at = Seek(key);
    return at == kNone ? nullptr : &slots_[at].value;
  }

  // Adds the key, with an empty value, unless it is there.
  Value& Add(uint64_t key) {
    size_t at = Seek(key);
    if (at != kNone) return slots_[at].value;
    if (count_ == kMost * (mask_ + 1)) Resize(2 * (mask_ + 1));
    count_++;
    at = Take(key);
    slots_[at] = {key, {}};
    return slots_[at].value;
  }

  void Remove(uint64_t key) {
    const size_t at = Seek(key);
    if (at == kNone) return;
    for (size_t group = Home(key); group != at / kPlaces; group = (group + 1) & mask_)
      if (tags_[group] < kTooMany) tags_[group] -= kPast;
    tags_[at / kPlaces] &= ~(uint64_t{0xff} << at % kPlaces * 8);
    count_--;
    if (mask_ + 1 > kLeast && count_ < mask_ + 1) Resize((mask_ + 1) / 2);
  }

  void Prefetch(uint64_t key) const {
    const size_t group = Home(key);
    if (const uint64_t same = Same(tags_[group], key))
      __builtin_prefetch(&slots_[kPlaces * group + __builtin_ctzll(same) / 8]);
  }

 private:
  static constexpr size_t kNone = SIZE_MAX;             // is no place
  static constexpr size_t kPlaces = 7, kMost = 5;       // of a group, and how many are in use on average at most
  static constexpr size_t kLeast = 2;                   // groups
  static constexpr uint64_t kOnes = 0x01010101010101;   // of a group's tags
  static constexpr uint64_t kUsed = 0x80 * kOnes;       // the bits that are set where a place is in use
  static constexpr uint64_t kPast = uint64_t{1} << 56;  // one key went past the group
  static constexpr uint64_t kTooMany = 255 * kPast;     // it has stopped counting

  struct Slot {
    uint64_t key;
    Value value;
  };

  // Scattered by a multiplication, which keeps keys in regular steps apart.
  static uint64_t Hash(uint64_t key) { return key * 0x9e3779b97f4a7c15; }
  size_t Home(uint64_t key) const { return Hash(key) >> shift_; }
  uint64_t Tag(uint64_t key) const { return 0x80 | (Hash(key) >> (shift_ - 7) & 0x7f); }

  // The bits of kUsed where the tag is the key's.
  uint64_t Same(uint64_t tags, uint64_t key) const {
    const uint64_t other = tags ^ Tag(key) * kOnes;
    return (other - kOnes) & ~other & kUsed;
  }

  // Where the key is.
  size_t Seek(uint64_t key) const {
    for (size_t group = Home(key);; group = (group + 1) & mask_) {
      for (uint64_t same = Same(tags_[group], key); same; same &= same - 1) {
        const size_t at = kPlaces * group + __builtin_ctzll(same) / 8;
        if (slots_[at].key == key) return at;
      }
      if (tags_[group] < kPast) return kNone;
    }
  }

  // Takes a place for a key.
  size_t Take(uint64_t key) {
    size_t group = Home(key);
    for (; (tags_[group] & kUsed) == kUsed; group = (group + 1) & mask_)
      if (tags_[group] < kTooMany) tags_[group] += kPast;
    const size_t place = __builtin_ctzll(~tags_[group] & kUsed) / 8;
    tags_[group] |= Tag(key) << 8 * place;
    return kPlaces * group + place;
  }

  void Allocate(size_t groups) {
    tags_ = std::make_unique<uint64_t[]>(groups);
    slots_ = std::make_unique<Slot[]>(kPlaces * groups);
    mask_ = groups - 1;
    shift_ = 64 - __builtin_ctzll(groups);
  }

  void Resize(size_t groups) {
    const auto tags = std::move(tags_);
    const auto slots = std::move(slots_);
    const size_t before = mask_ + 1;
    Allocate(groups);
    for (size_t group = 0; group < before; group++)
      for (uint64_t used = tags[group] & kUsed; used; used &= used - 1) {
        const Slot& slot = slots[kPlaces * group + __builtin_ctzll(used) / 8];
        slots_[Take(slot.key)] = slot;
      }
  }

  std::unique_ptr<uint64_t[]> tags_;
  std::unique_ptr<Slot[]> slots_;
  size_t mask_ = 0, count_ = 0;  // mask_: for the number of a group
  int shift_ = 0;
};

}  // namespace vioctl::iova
