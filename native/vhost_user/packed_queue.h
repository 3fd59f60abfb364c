// A packed virtqueue (virtio 1.3, 2.8).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "vhost_user/virtqueue.h"

namespace vioctl::vhost_user {

class PackedQueue final : public Virtqueue {
 public:
  PackedQueue(std::shared_ptr<const GuestMemory> memory, const Layout& layout, uint32_t min_chain);

  Pop Next(Chain& chain) override;
  void Undo(const Chain& chain) override;
  void Put(const Chain& chain, uint32_t written) override;
  bool ShouldNotify() override;
  void WantKicks(bool want) override;
  uint32_t base() const override;
  bool resuming() const override { return resumed_ < resume_.size(); }

 private:
  // The ring, and the event suppression structures of driver and device.
  Sizes sizes() const override { return {16ull * num_, 4, 4, 4, 4}; }
  uint8_t* At(uint16_t index) const { return desc_ + 16 * index; }
  const char* Gather();
  const char* Walk(Chain& chain);
  void LogRing(const uint8_t* at, uint64_t length) const {
    if (log_used_) log_->MarkHost(*memory_, at, length);
  }

  RingPlace avail_place_, used_place_;
  uint32_t put_ = 0;  // entries since the driver was last asked
  std::vector<Desc> descs_;
  std::optional<PackedInflight> inflight_;
  std::vector<PackedInflight::Chain> resume_;  // of an earlier back-end
  size_t resumed_ = 0;
};

}  // namespace vioctl::vhost_user
