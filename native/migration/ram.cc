#include "migration/ram.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "common/error.h"
#include "migration/busguard.h"
#include "migration/xbzrle.h"

namespace vioctl::migration {
namespace {

constexpr size_t kMaxIssues = 64;

uint64_t Be64(const uint8_t* at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return std::endian::native == std::endian::little ? __builtin_bswap64(value) : value;
}
uint32_t Be32(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 | static_cast<uint32_t>(at[2]) << 8 |
         at[3];
}

uint64_t Mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

uint64_t HashPage(const uint8_t* bytes, size_t size, uint64_t seed) {
  uint64_t a = seed ^ 0x9e3779b97f4a7c15u, b = ~seed * 0xd6e8feb86659fd93u;
  for (size_t i = 0; i + 32 <= size; i += 32) {
    uint64_t w[4];
    memcpy(w, bytes + i, sizeof w);
    a = Mix(w[0] ^ a, w[1] ^ 0xa0761d6478bd642fu);
    b = Mix(w[2] ^ b, w[3] ^ 0xe7037ed1a0b428dbu);
  }
  return Mix(a ^ 0x8ebc6af09c88c6e3u, b ^ size) | 1;  // 0 is "none"
}

bool AllZero(const uint8_t* bytes, size_t size) {
  uint64_t first;
  memcpy(&first, bytes, sizeof first);
  return first == 0 && memcmp(bytes, bytes + 8, size - 8) == 0;
}

size_t Ram::Add(std::string name, uint64_t length) {
  blocks_.emplace_back();
  blocks_.back().name = std::move(name);
  blocks_.back().length = length;
  by_name_[blocks_.back().name] = static_cast<int>(blocks_.size()) - 1;
  return blocks_.size() - 1;
}

void Ram::Broken(uint64_t at) {
  std::erase_if(issues_, [at](const Issue& issue) { return issue.offset >= at; });
  record_ = at;
  page_ = 0;
}

std::vector<Issue> Ram::TakeIssues() { return std::exchange(issues_, {}); }

void Ram::Note(Fault fault, uint64_t value) {
  if (issues_.size() >= kMaxIssues) {
    ++lost_;
    return;
  }
  issues_.push_back(Issue{fault, record_, current_, page_, value});
}

bool Ram::Seen(Block& block, uint64_t addr) {
  const bool again = block.seen.Set(Index(addr), &budget_);
  block.resent += again;
  return again || !block.seen.Knows(Index(addr));
}

void Ram::SetHash(Block& block, uint64_t addr, uint64_t hash) {
  const uint64_t index = Index(addr);
  if (index >= block.hashes.size()) {
    if (hash == 0) return;
    const uint64_t more = index + 1 - block.hashes.size();
    if (more > hashes_left_) {
      ++block.unhashed;
      return;
    }
    hashes_left_ -= more;
    block.hashes.resize(index + 1);
  }
  block.hashes[index] = hash;
}

void Ram::ZeroPage(Block& block, uint64_t addr) {
  ++block.zero;
  if (!Seen(block, addr) || !block.content.MayHave(Index(addr))) return;
  block.content.Clear(Index(addr), &budget_);
  if (sink_) sink_->Zero(static_cast<size_t>(&block - blocks_.data()), addr, options_.page_size);
  if (options_.hash) SetHash(block, addr, 0);
}

// bytes may be null when nobody reads the page.
void Ram::NormalPage(Block& block, uint64_t addr, const uint8_t* bytes) {
  if (bytes && AllZero(bytes, options_.page_size)) {  // zero-page-detection=none sends zeros as pages
    ++block.normal;
    --block.zero;
    ZeroPage(block, addr);
    return;
  }
  Seen(block, addr);
  block.content.Set(Index(addr), &budget_);
  ++block.normal;
  if (!bytes) return;
  if (sink_) sink_->Write(static_cast<size_t>(&block - blocks_.data()), addr, bytes, options_.page_size);
  if (options_.hash) SetHash(block, addr, HashPage(bytes, options_.page_size, options_.seed));
}

// Runs: pages are sent in the order of their addresses, so nearly every record's word is the last one's plus a page.
// That word is compared for, and a run is noted at once: an idle guest's file is millions of such records.

uint64_t Ram::ZeroRun(Block& block, const uint8_t* at, const uint8_t* end) {
  const uint64_t page = options_.page_size, addr = Be64(at) & ~(page - 1), first = Index(addr);
  const uint64_t most = std::min(static_cast<uint64_t>(end - at) / 9, Index(block.length - 1) - first + 1);
  uint64_t count = 1, word = Be64(at) + page;
  for (size_t line = 64; line <= 448; line += 64) __builtin_prefetch(at + line);
  at += 9;
  // Eight at a time: what differs is collected, and asked for once.
  for (; count + 8 <= most; count += 8, at += 72, word += 8 * page) {
    __builtin_prefetch(at + 448);
    __builtin_prefetch(at + 512);
    uint64_t odd = 0;
#pragma GCC unroll 8
    for (uint64_t i = 0; i < 8; ++i) odd |= (Be64(at + 9 * i) ^ (word + i * page)) | at[9 * i + 8];
    if (odd != 0) break;
  }
  for (; count < most && Be64(at) == word && at[8] == 0; at += 9, word += page) ++count;
  if (block.content.MayHave(first, count)) {
    for (uint64_t i = 0; i < count; ++i) ZeroPage(block, addr + i * page);
    return count;
  }
  block.resent += block.seen.SetRun(first, count, &budget_);
  block.zero += count;
  return count;
}

uint64_t Ram::NormalRun(Block& block, const uint8_t* at, const uint8_t* end) {
  constexpr uint64_t kAhead = 8;  // records whose headers are on their way from memory
  const uint64_t page = options_.page_size, first = Index(Be64(at) & ~(page - 1)), size = 8 + page;
  const uint64_t most = std::min(static_cast<uint64_t>(end - at) / size, Index(block.length - 1) - first + 1);
  uint64_t count = 1, word = Be64(at) + page;
  for (at += size; count < most; at += size, word += page, ++count) {
    if (static_cast<uint64_t>(end - at) > kAhead * size) __builtin_prefetch(at + kAhead * size);
    if (Be64(at) != word) break;
  }
  block.resent += block.seen.SetRun(first, count, &budget_);
  block.content.SetRun(first, count, &budget_);
  block.normal += count;
  return count;
}

Ram::Stop Ram::Step(Source& source, uint64_t budget) {
  const uint64_t from = source.position();
  const uint64_t mask = options_.page_size - 1;
  const size_t page = options_.page_size;
  const bool reads = Reads();
  Stop stop = Stop::kBudget;
  while (source.position() - from < budget) {
    const uint8_t* at = source.Need(8);
    if (!at) {
      record_ = source.position();
      stop = Stop::kEnd;
      break;
    }
    // The two records that make up nearly all of a file, while they lie in the window.
    const uint8_t* const start = at;
    const uint8_t* const end = at + source.Ready();
    if (current_ >= 0) {
      Block& block = blocks_[static_cast<size_t>(current_)];
      while (end - at >= 9) {
        const uint64_t word = Be64(at), flags = word & mask, addr = word & ~mask;
        if (addr >= block.length) break;
        if (flags == (kPage | kContinue)) {
          if (static_cast<size_t>(end - at) < 8 + page) break;
          if (reads) {
            NormalPage(block, addr, at + 8);
            at += 8 + page;
          } else {
            at += (8 + page) * NormalRun(block, at, end);
          }
        } else if (flags == (kZero | kContinue) && at[8] == 0) {
          at += 9 * ZeroRun(block, at, end);
        } else {
          break;
        }
      }
      const auto done = static_cast<uint64_t>(at - start);
      block.bytes += done;
      if (sink_) sink_->Flush();  // its queue points into the window
      source.Consume(done);
      if (done > 0 && end - at < static_cast<ptrdiff_t>(8 + page)) continue;  // budget, then the next window
    }
    if (!Record(source, &stop)) break;
  }
  if (sink_) sink_->Flush();
  return stop;
}

// [u8 length, name] of a record without CONTINUE. False at an end.
bool Ram::Name(Source& source, bool* known) {
  const uint8_t* at = source.Need(1);
  if (!at) return false;
  const size_t length = at[0];
  at = source.Need(1 + length);
  if (!at) return false;
  const std::string_view name(reinterpret_cast<const char*>(at + 1), length);
  named_ = true;
  if (current_ < 0 || blocks_[static_cast<size_t>(current_)].name != name) {
    const auto found = by_name_.find(name);
    current_ = found == by_name_.end() ? -1 : found->second;
  }
  *known = current_ >= 0;
  source.Consume(1 + length);
  return true;
}

// One record of any kind. False: *stop says why.
bool Ram::Record(Source& source, Stop* stop) {
  record_ = source.position();
  page_ = 0;
  const auto ended = [stop] {
    *stop = Stop::kEnd;
    return false;
  };
  const auto bad = [this, stop](uint64_t word) {
    Note(Fault::kFlags, word);
    *stop = Stop::kBad;
    return false;
  };
  const uint8_t* at = source.Need(8);
  if (!at) return ended();
  const uint64_t word = Be64(at), mask = options_.page_size - 1, addr = word & ~mask, flags = word & mask;
  const uint64_t kind = flags & ~uint64_t{kContinue};
  if (flags == kEos) {
    source.Consume(8);
    *stop = Stop::kEos;
    return false;
  }
  if (flags == kMemSize) {
    source.Consume(8);
    value_ = addr;
    *stop = Stop::kMemSize;
    return false;
  }
  if (flags == kMultifdFlush) {
    source.Consume(8);
    return true;
  }
  if (kind != kZero && kind != kPage && kind != kXbzrle && kind != kCompress) return bad(word);
  source.Consume(8);
  page_ = addr;
  bool known = current_ >= 0;
  if (flags & kContinue) {
    if (!named_) {
      Note(Fault::kNoBlock, word);
      *stop = Stop::kBad;
      return false;
    }
  } else if (!Name(source, &known)) {
    return ended();
  }
  if (!known && !(flags & kContinue)) Note(Fault::kUnknownBlock, addr);
  if (known && addr >= blocks_[static_cast<size_t>(current_)].length) {
    Note(Fault::kOutside, addr);
    known = false;
  }
  Block* block = known ? &blocks_[static_cast<size_t>(current_)] : nullptr;
  if (kind == kZero) {
    at = source.Need(1);
    if (!at) return ended();
    const uint8_t fill = at[0];
    source.Consume(1);
    if (fill != 0) Note(Fault::kFill, fill);
    if (block && fill == 0) ZeroPage(*block, addr);
    if (block && fill != 0) {
      memset(buffer_.get(), fill, options_.page_size);
      NormalPage(*block, addr, Reads() ? buffer_.get() : nullptr);
      if (sink_) sink_->Flush();
    }
  } else if (kind == kPage) {
    const size_t page = options_.page_size;
    if (Reads() && block) {
      at = source.Need(page);
      value_ = source.have();
      if (!at) return ended();
      NormalPage(*block, addr, at);
      if (sink_) sink_->Flush();
      source.Consume(page);
    } else {
      const uint64_t got = source.Skip(page);
      value_ = got;
      if (got < page) return ended();
      if (block) NormalPage(*block, addr, nullptr);
    }
  } else {
    const int owner = current_;
    if (!known) current_ = -1;
    const bool more = kind == kXbzrle ? XbzrlePage(source, stop) : CompressedPage(source, stop);
    current_ = owner;
    if (!more) return false;
  }
  if (block) block->bytes += source.position() - record_;
  return true;
}

bool Ram::XbzrlePage(Source& source, Stop* stop) {
  const uint8_t* at = source.Need(3);
  if (!at) {
    *stop = Stop::kEnd;
    return false;
  }
  const size_t length = static_cast<size_t>(at[1]) << 8 | at[2];
  if (at[0] != 1 || length > options_.page_size) {
    // Without a length that holds there is no next record.
    Note(Fault::kXbzrleHeader, static_cast<uint64_t>(at[0]) << 16 | length);
    *stop = Stop::kBad;
    return false;
  }
  source.Consume(3);
  at = source.Need(length);
  if (!at && length > 0) {
    *stop = Stop::kEnd;
    return false;
  }
  if (current_ >= 0) {
    Block& block = blocks_[static_cast<size_t>(current_)];
    const size_t index = static_cast<size_t>(current_);
    const bool base = block.seen.MayHave(Index(page_));
    bool good = Unxbzrle(at, length, nullptr, options_.page_size);
    if (!good) Note(Fault::kXbzrle, length);
    if (good && !base) {
      Note(Fault::kXbzrleBase, length);
      good = false;
    }
    ++block.xbzrle;
    Seen(block, page_);
    if (!good) ++block.undecodable;
    if (good && sink_ && sink_->Wants(index, page_, options_.page_size)) {
      sink_->ReadBack(index, page_, buffer_.get(), options_.page_size);
      Unxbzrle(at, length, buffer_.get(), options_.page_size);
      sink_->Write(index, page_, buffer_.get(), options_.page_size);
      sink_->Flush();
    }
    block.content.Set(Index(page_), &budget_);
    if (options_.hash) SetHash(block, page_, 2);  // even: not a hash; the content is not known here
  }
  source.Consume(length);
  return true;
}

bool Ram::CompressedPage(Source& source, Stop* stop) {
  const uint8_t* at = source.Need(4);
  if (!at) {
    *stop = Stop::kEnd;
    return false;
  }
  const uint64_t length = Be32(at);
  const uint64_t most = options_.page_size + (options_.page_size >> 12) + (options_.page_size >> 14) +
                        (options_.page_size >> 25) + 13 + 64;  // zlib's compressBound, and some
  if (length > most) {
    Note(Fault::kZlibLength, length);
    *stop = Stop::kBad;
    return false;
  }
  source.Consume(4);
  at = source.Need(static_cast<size_t>(length));
  if (!at && length > 0) {
    *stop = Stop::kEnd;
    return false;
  }
  if (current_ >= 0) {
    Block& block = blocks_[static_cast<size_t>(current_)];
    if (Reads() || options_.check) {
      inflater_.Start(Inflater::kZlib);
      uint8_t over;
      const auto result = inflater_.Run(at, length, buffer_.get(), options_.page_size);
      bool good = result.made == options_.page_size;
      if (good && result.status != Inflater::kDone) {
        const auto rest = inflater_.Run(at + result.used, length - result.used, &over, 1);
        good = rest.status == Inflater::kDone && rest.made == 0;
      }
      if (good) {
        NormalPage(block, page_, buffer_.get());
        if (sink_) sink_->Flush();
        // Counted as what it was.
        --block.normal;
      } else {
        Note(Fault::kZlib, result.made);
        Seen(block, page_);
        ++block.undecodable;
      }
    } else {
      Seen(block, page_);
      block.content.Set(Index(page_), &budget_);
    }
    ++block.compressed;
  }
  source.Consume(static_cast<size_t>(length));
  return true;
}

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
