#include "nvme/host/source.h"

#include <algorithm>

#include "storage/direct.h"
#include "storage/farewell.h"
#include "storage/remote/remote.h"

namespace vioctl::nvme::host {
namespace {

using storage::Op;

template <size_t N>
std::string Hex(const std::array<uint8_t, N>& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : bytes) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

template <size_t N>
bool Given(const std::array<uint8_t, N>& id) {
  return std::any_of(id.begin(), id.end(), [](uint8_t byte) { return byte != 0; });
}

class Source final : public storage::Remote, public std::enable_shared_from_this<Source> {
 public:
  explicit Source(const SourceOptions& options) : unmap_(options.unmap), subnqn_(options.subnqn) {}

  // Apart from the constructor: what the host tells needs a share of it.
  void Open(const SourceOptions& options) {
    const std::weak_ptr<Source> weak = weak_from_this();
    Events events;
    events.news = [weak](const char* what, int err) {
      if (const auto self = weak.lock()) self->Tell(what, err);
    };
    events.resized = [weak](uint64_t bytes) {
      if (const auto self = weak.lock()) self->size_.store(bytes, std::memory_order_relaxed);
    };
    host_ = Host::Open(options, std::move(events));
    readonly_ = options.readonly || host_->facts().readonly;
    size_.store(host_->size(), std::memory_order_relaxed);
  }

  void Begin(storage::Request* request) override {
    if (unmap_ && request->op == Op::kWrite && storage::AllZero(request->parts, request->count)) {
      request->op = Op::kZero;
      request->deallocate = true;
    }
    host_->Submit(request);
  }
  bool TakesDurable() const override { return true; }
  // What is not flushed is kept (unflushed.h), or the loss is told by the next flush that the target answers.
  bool Loses(int err) const override { return err != 0 && !storage::Away(err); }

  std::string lasting_name() const override {
    const NamespaceFacts& facts = host_->facts();
    if (Given(facts.uuid)) return "uuid " + Hex(facts.uuid);
    if (Given(facts.nguid)) return "nguid " + Hex(facts.nguid);
    if (Given(facts.eui64)) return "eui64 " + Hex(facts.eui64);
    return subnqn_ + " " + std::to_string(facts.nsid);
  }

  storage::Geometry geometry() const override {
    const NamespaceFacts& facts = host_->facts();
    const IdNamespace& raw = facts.raw;
    const bool optimal = (raw.nsfeat & kNsfeatOptimal) != 0;
    storage::Geometry geometry;
    geometry.logical = facts.block_size;
    geometry.minimum_io = optimal ? (raw.npwg + 1u) * facts.block_size : facts.block_size;
    geometry.physical = geometry.minimum_io;
    geometry.optimal_io = optimal ? (raw.nows + 1u) * facts.block_size : 0;
    geometry.readonly = facts.readonly;
    return geometry;
  }

  // The target tells of changes, or the host looks for them from time to time.
  uint64_t Refresh() override {
    const uint64_t bytes = host_->size();
    size_.store(bytes, std::memory_order_relaxed);
    return bytes;
  }

  void Reopen() override { durability_->Clear(); }

  Host& host() { return *host_; }

 protected:
  // Looks at a header need not be whole blocks.
  int DoRead(const iovec* to, int count, uint64_t offset, bool nowait) override {
    const uint64_t size = storage::BytesOf(to, count), block = host_->facts().block_size;
    if (((offset | size) & (block - 1)) == 0) return Remote::DoRead(to, count, offset, nowait);
    const uint64_t from = offset / block * block, end = (offset + size + block - 1) / block * block;
    std::vector<uint8_t> whole(end - from);
    const iovec part{whole.data(), whole.size()};
    if (const int err = Remote::DoRead(&part, 1, from, nowait)) return err;
    storage::Scatter(reinterpret_cast<std::byte*>(whole.data()) + (offset - from), to, count);
    return 0;
  }

 private:
  const bool unmap_;
  const std::string subnqn_;
  std::unique_ptr<Host> host_;
};

Source& Known(storage::Store& store) {
  auto* source = dynamic_cast<Source*>(&store);
  if (!source) throw SysError(EINVAL, "hostPaths", "not a source of NVMe/TCP");
  return *source;
}

}  // namespace

PathCount PathsOf(storage::Store& store) { return Known(store).host().paths(); }

void Follow(storage::Store& store, std::vector<Address> found) { Known(store).host().Follow(std::move(found)); }

Hops HopsTo(storage::Store& store) {
  auto* source = dynamic_cast<Source*>(&store);
  return source ? source->host().hops() : Hops{};
}

std::shared_ptr<storage::Store> OpenSource(const SourceOptions& options) {
  auto source = storage::MakeSlow<Source>(options);
  source->Open(options);
  return source;
}

}  // namespace vioctl::nvme::host
