// mapped-ram: the bitmap of each block, in an order of bytes that may have to be told, and its pages at their places.
#include <algorithm>
#include <bit>
#include <utility>

#include "migration/ram.h"

namespace vioctl::migration {

bool Ram::ReadBitmap(Source& source, size_t index, Order order) {
  Block& block = blocks_[index];
  if (order == Order::kEither) block.readings = std::make_unique<Readings>();
  const uint64_t pages = block.length / options_.page_size + (block.length % options_.page_size != 0);
  uint64_t page = 0;
  record_ = source.position();
  page_ = 0;
  current_ = static_cast<int>(index);
  while (page < pages) {
    const uint8_t* at = source.Need(8);
    if (!at) return false;
    uint64_t big = Be64(at), word = order == Order::kBig ? big : __builtin_bswap64(big);
    const uint64_t in_word = std::min<uint64_t>(64, pages - page);
    const uint64_t valid = ~uint64_t{0} >> (64 - in_word);
    const auto spare = static_cast<uint64_t>(std::popcount(word & ~valid));
    if (Readings* both = block.readings.get()) {
      both->spare_little += spare;
      both->spare_big += static_cast<uint64_t>(std::popcount(big & ~valid));
      for (uint64_t rest = (word ^ big) & valid; rest != 0; rest &= rest - 1) {
        const int bit = std::countr_zero(rest);
        ((word >> bit) & 1 ? both->little : both->big).Set(page + static_cast<uint64_t>(bit), &both->budget);
      }
    } else if (spare != 0) {
      Note(Fault::kSpareBits, spare);
    }
    word &= valid;
    block.seen.SetRun(page, in_word, &budget_);
    for (uint64_t rest = word; rest != 0; rest &= rest - 1) {
      block.content.Set(page + static_cast<uint64_t>(std::countr_zero(rest)), &budget_);
    }
    const auto set = static_cast<uint64_t>(std::popcount(word));
    block.normal += set;
    block.zero += in_word - set;
    page += in_word;
    source.Consume(8);
  }
  if (!block.content.full()) Note(Fault::kUntracked, 0);
  return true;
}

Order Ram::Settle(size_t index) {
  Block& block = blocks_[index];
  const std::unique_ptr<Readings> both = std::move(block.readings);
  if (!both) return Order::kEither;
  Order order = Order::kEither;
  if (both->filled_little != both->filled_big)
    order = both->filled_little > both->filled_big ? Order::kLittle : Order::kBig;
  else if (both->spare_little != both->spare_big)
    order = both->spare_little < both->spare_big ? Order::kLittle : Order::kBig;
  const bool big = order == Order::kBig;
  const PageMap& wrong = big ? both->little : both->big;
  for (uint64_t page = 0; page < wrong.end(); ++page) {
    if (!wrong.Get(page)) continue;
    const uint64_t at = page * options_.page_size;
    if (both->filled.Get(page)) {
      if (sink_) sink_->Zero(index, at, static_cast<size_t>(std::min<uint64_t>(options_.page_size, block.length - at)));
      if (options_.hash) SetHash(block, at, 0);
    }
    if (!big) continue;
    block.content.Clear(page, &budget_);
    --block.normal;
    ++block.zero;
  }
  if (sink_) sink_->Flush();
  for (uint64_t page = 0; big && page < both->big.end(); ++page) {
    if (!both->big.Get(page)) continue;
    block.content.Set(page, &budget_);
    ++block.normal;
    --block.zero;
  }
  current_ = static_cast<int>(index);
  page_ = 0;
  if (const uint64_t spare = big ? both->spare_big : both->spare_little; spare != 0) Note(Fault::kSpareBits, spare);
  if (big && !(both->little.full() && both->big.full() && both->filled.full())) Note(Fault::kOrder, 0);
  return order;
}

void Ram::CutMapped(size_t index, uint64_t available) {
  Block& block = blocks_[index];
  if (block.length <= available) return;  // the last page of a block may be a part of one
  for (uint64_t page = available / options_.page_size; page < block.content.end(); ++page) {
    if (!block.content.Get(page)) continue;
    block.content.Clear(page, &budget_);
    block.seen.Clear(page, &budget_);
  }
}

uint64_t Ram::MappedPages(Source& source, size_t index, uint64_t at, uint64_t from, uint64_t budget, int copy_fd) {
  Block& block = blocks_[index];
  const uint64_t page = options_.page_size;
  Readings* const both = block.readings.get();
  const uint64_t last = both ? std::max(block.content.end(), both->big.end()) : block.content.end();
  const uint64_t pages = std::min(block.length / page + (block.length % page != 0), last);
  const auto wanted = [&block, both](uint64_t n) { return block.content.Get(n) || (both && both->big.Get(n)); };
  uint64_t done = 0;
  ended_ = false;
  while (from < pages && done < budget) {
    if (!wanted(from)) {
      ++from;
      continue;
    }
    uint64_t to = from + 1;
    while (to < pages && (to - from) * page < budget && wanted(to)) ++to;
    const uint64_t offset = from * page;
    uint64_t size = std::min((to - from) * page, block.length - offset);
    if (sink_ && copy_fd >= 0 && !options_.hash) {
      if (at + offset + size > source.size()) {
        ended_ = true;
        record_ = source.size();
        size = at + offset < source.size() ? source.size() - (at + offset) : 0;
      }
      if (!sink_->Copy(index, offset, copy_fd, at + offset, size)) {  // it shrank since
        ended_ = true;
        record_ = source.SizeNow();
      }
    } else {
      if (source.seekable())
        source.Seek(at + offset);
      else if (const uint64_t gap = at + offset - source.position(); source.Skip(gap) < gap)
        ended_ = true;
      for (uint64_t i = 0; i < size && !ended_; i += page) {
        const size_t some = static_cast<size_t>(std::min(page, size - i));
        const uint8_t* bytes = source.Need(some);
        if (!bytes) {
          ended_ = true;
          record_ = source.position();
          break;
        }
        bool takes = true;
        if (both) {
          const uint64_t n = Index(offset + i);
          const bool little = both->little.Get(n);
          if (little || both->big.Get(n)) {
            takes = !AllZero(bytes, some);
            if (takes) {
              both->filled.Set(n, &both->budget);
              ++(little ? both->filled_little : both->filled_big);
            }
          }
        }
        if (sink_) {
          if (takes) sink_->Write(index, offset + i, bytes, some);
          if (source.Ready() < some + page) sink_->Flush();
        }
        if (options_.hash) SetHash(block, offset + i, AllZero(bytes, some) ? 0 : HashPage(bytes, some, options_.seed));
        source.Consume(some);
      }
      if (sink_) sink_->Flush();
    }
    if (ended_) break;
    done += size;
    from = to;
  }
  return from >= pages ? UINT64_MAX >> 12 : from;
}

}  // namespace vioctl::migration
