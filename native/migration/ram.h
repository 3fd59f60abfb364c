// The `ram` section of a migration stream (version 4): the loop over page records, and the pages of mapped-ram.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "migration/page_map.h"
#include "migration/shared.h"
#include "migration/sink.h"
#include "migration/source.h"
#include "migration/zlib.h"

namespace vioctl::migration {

struct Issue {
  Fault fault;
  uint64_t offset;  // of the record in the stream
  int block;        // -1: none
  uint64_t page;    // address in the block
  uint64_t value;
};

// The two readings of a bitmap while its order is not known; `content` is the little-endian one then.
struct Readings {
  PageBudget budget;
  PageMap little, big;  // pages that only this reading has
  PageMap filled;       // those of both that came by with content
  uint64_t filled_little = 0, filled_big = 0;
  uint64_t spare_little = 0, spare_big = 0;  // bits behind the last page
};

struct Block {
  std::string name;
  uint64_t length = 0;
  uint64_t zero = 0, normal = 0, xbzrle = 0, compressed = 0;  // records
  uint64_t resent = 0;                                        // records of a page that an earlier record had
  uint64_t bytes = 0;                                         // of the stream, headers included
  uint64_t undecodable = 0;                                   // pages whose content could not be made
  PageMap seen;                                               // a record gave the page
  PageMap content;                                            // its last record had content other than zeros
  std::vector<uint64_t> hashes;                               // of each page's last content, with hashing on
  uint64_t unhashed = 0;                                      // records whose hash found no room
  std::unique_ptr<Readings> readings;                         // mapped-ram, until Settle
};

class Ram {
 public:
  struct Options {
    uint32_t page_size = 4096;
    bool check = false;  // inflate compressed pages even if nobody wants them
    bool hash = false;   // keep a hash of every page
    uint64_t seed = 0;   // of the hash
    PageBudget page_maps;
  };
  using Stop = migration::Stop;

  explicit Ram(const Options& options)
      : options_(options), shift_(std::countr_zero(options.page_size)), buffer_(new uint8_t[options.page_size]) {}

  // Adds a block; returns its index.
  size_t Add(std::string name, uint64_t length);
  std::vector<Block>& blocks() { return blocks_; }
  const Options& options() const { return options_; }
  // Pages go there from now on.
  void Extract(std::unique_ptr<Sink> sink) { sink_ = std::move(sink); }
  Sink* sink() { return sink_.get(); }

  // Walks records until one of Stop, or until about `budget` bytes are done.
  Stop Step(Source& source, uint64_t budget);
  uint64_t value() const { return value_; }
  // Where the record begins that was not completed (kEnd, kBad), and the page that it was about.
  uint64_t record() const { return record_; }
  uint64_t page() const { return page_; }
  int current() const { return current_; }

  // Reads the bitmap of a mapped-ram block (at the source's position) into seen and content. False at an end: seen has
  // the pages whose bits were there. After Order::kEither, MappedPages takes the pages of both readings from a source
  // that is not seekable, and Settle must follow.
  bool ReadBitmap(Source& source, size_t block, Order order);
  // Decides for the reading whose pages had content, and takes back what the other one brought. Returns it, or kEither
  // where nothing speaks for one of them: then it is kLittle that stays.
  Order Settle(size_t block);
  // Extracts and hashes the pages of a mapped-ram block from page `from` on, the block's first page being at `at` in
  // the stream; stops after about `budget` bytes. Returns the next page to do (beyond all pages: done); ended() if the
  // source did.
  uint64_t MappedPages(Source& source, size_t block, uint64_t at, uint64_t from, uint64_t budget, int copy_fd);
  bool ended() const { return ended_; }
  // Takes back the pages of a mapped-ram block that are not whole within `available` bytes.
  void CutMapped(size_t block, uint64_t available);
  // The source broke at `at` during the last call: what was made of the zeros behind it is taken back as far as it is
  // an issue.
  void Broken(uint64_t at);

  // Bounded list of issues since the last call; lost() counts those that found no room.
  std::vector<Issue> TakeIssues();
  uint64_t lost() const { return lost_; }
  // MULTIFD_FLUSH words so far: they are sent only where pages go over other connections.
  uint64_t flushes() const { return flushes_; }

 private:
  bool Record(Source& source, Stop* stop);
  bool Name(Source& source, bool* known);
  void Note(Fault fault, uint64_t value);
  // Notes that a record gave the page; false if it was certainly the first.
  bool Seen(Block& block, uint64_t addr);
  void ZeroPage(Block& block, uint64_t addr);
  void NormalPage(Block& block, uint64_t addr, const uint8_t* bytes);
  // Records from `at` on whose addresses follow each other, all of them within [at, end) and the block; the first is
  // known to be one. They are noted; returns how many there are. NormalRun is for pages that nobody reads.
  uint64_t ZeroRun(Block& block, const uint8_t* at, const uint8_t* end);
  uint64_t NormalRun(Block& block, const uint8_t* at, const uint8_t* end);
  bool XbzrlePage(Source& source, Stop* stop);
  bool CompressedPage(Source& source, Stop* stop);
  // Whether somebody wants the content of a block's pages.
  bool Reads(int block) const {
    return options_.hash || (sink_ && block >= 0 && sink_->Has(static_cast<size_t>(block)));
  }
  void SetHash(Block& block, uint64_t addr, uint64_t hash);

  // A shift: a division per record would cost more than all the rest.
  uint64_t Index(uint64_t addr) const { return addr >> shift_; }

  Options options_;
  int shift_;
  std::vector<Block> blocks_;
  std::map<std::string, int, std::less<>> by_name_;
  PageBudget budget_ = options_.page_maps;
  uint64_t hashes_left_ = uint64_t{8} << 20;  // pages whose hashes are kept: 64 MB, 32 GiB of 4 KiB pages
  std::unique_ptr<Sink> sink_;
  std::unique_ptr<uint8_t[]> buffer_;
  Inflater inflater_;
  int current_ = -1;  // block of the last name: it lasts across sections
  bool named_ = false;
  uint64_t value_ = 0, record_ = 0, page_ = 0;
  bool ended_ = false;
  std::vector<Issue> issues_;
  uint64_t lost_ = 0, flushes_ = 0;
};

// A big-endian word of the stream.
inline uint64_t Be64(const uint8_t* at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return std::endian::native == std::endian::little ? __builtin_bswap64(value) : value;
}
// 64-bit hash of a page, keyed: for comparisons within one run, not for storing.
uint64_t HashPage(const uint8_t* bytes, size_t size, uint64_t seed);
// True if all bytes are zero.
bool AllZero(const uint8_t* bytes, size_t size);

}  // namespace vioctl::migration
