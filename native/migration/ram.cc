#include "migration/ram.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/assert.h"
#include "migration/xbzrle.h"

namespace vioctl::migration {
namespace {

constexpr size_t kMaxIssues = 64;

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
      const bool reads = Reads(current_);
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
  VIOCTL_ASSERT(source.position() >= from && current_ < static_cast<int>(blocks_.size()));
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
    ++flushes_;
    return true;
  }
  if (kind != kZero && kind != kPage && kind != kXbzrle && kind != kCompressPage) return bad(word);
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
      NormalPage(*block, addr, Reads(current_) ? buffer_.get() : nullptr);
      if (sink_) sink_->Flush();
    }
  } else if (kind == kPage) {
    const size_t page = options_.page_size;
    if (block && Reads(current_)) {
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
    if (Reads(current_) || options_.check) {
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

}  // namespace vioctl::migration
