// A split virtqueue (virtio 1.3, 2.7).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "vhost_user/virtqueue.h"

namespace vioctl::vhost_user {

class SplitQueue final : public Virtqueue {
 public:
  SplitQueue(std::shared_ptr<const GuestMemory> memory, const Layout& layout, uint32_t min_chain);

  Pop Next(Chain& chain) override;
  void Undo(const Chain& chain) override;
  void Put(const Chain& chain, uint32_t written) override;
  bool ShouldNotify() override;
  void WantKicks(bool want) override;
  uint32_t base() const override { return next_avail_; }
  bool resuming() const override { return resumed_ < resume_.size(); }

 private:
  Sizes sizes() const override { return {16ull * num_, 6 + 2ull * num_, 6 + 8ull * num_, 2, 4}; }
  const char* Walk(Chain& chain);

  uint16_t next_avail_ = 0;
  uint16_t next_used_ = 0;
  uint16_t signalled_used_ = 0;
  bool signalled_valid_ = false;
  std::optional<SplitInflight> inflight_;
  std::vector<uint16_t> resume_;  // heads of an earlier back-end
  size_t resumed_ = 0;
};

}  // namespace vioctl::vhost_user
