// One PCI device opened through VFIO, and everything that belongs to it: descriptors, mapped BARs, DMA mappings, IRQs.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "os/fd.h"
#include "os/mapping.h"
#include "vfio/abi.h"

namespace vioctl::vfio {

struct Area {
  uint64_t offset, size;
};

// VFIO_DEVICE_GET_REGION_INFO with its capabilities.
struct RegionInfo {
  uint32_t index, flags;
  uint64_t size, offset;
  bool msix_mappable = false;  // VFIO_REGION_INFO_CAP_MSIX_MAPPABLE
  bool sparse = false;         // VFIO_REGION_INFO_CAP_SPARSE_MMAP: only `areas` may be mapped
  std::vector<Area> areas;     // what may be mapped
  uint32_t type = 0, subtype = 0;
};

struct IrqInfo {
  uint32_t index, flags, count;
};

// A device that shares the reset of this one (VFIO_DEVICE_GET_PCI_HOT_RESET_INFO).
struct ResetPeer {
  uint32_t group;  // group, or device id of iommufd (0: not owned by us)
  uint16_t segment;
  uint8_t bus, devfn;
};

// The UUID that a driver of virtual functions shares with that of their physical function
// (VFIO_DEVICE_FEATURE_PCI_VF_TOKEN).
using VfToken = std::array<uint8_t, 16>;

struct DmaRequest {
  uint64_t va, iova, size;
  bool read, write;  // by the device
};

class Session {
 public:
  // Group and container (drivers/vfio/container.c). noiommu: the group is /dev/vfio/noiommu-N. Throws SysError named
  // after the ioctl. with: another device whose container, and with it whose mappings, this one joins. name: the PCI
  // address, with " vf_token=UUID" behind it where the kernel asks for one (vfio_pci_core_match).
  static std::unique_ptr<Session> OpenGroup(const std::string& container, const std::string& group,
                                            const std::string& name, bool noiommu, const Session* with);
  // iommufd and the device's own character device (drivers/vfio/device_cdev.c). token: nullptr for none; kernels that
  // check none here go on without it.
  static std::unique_ptr<Session> OpenDevice(const std::string& iommu, const std::string& device, const Session* with,
                                             const VfToken* token);
  // A device that another process opened and passed on; the descriptors are duplicated. Its mappings stay that
  // process's. group: -1 with iommufd.
  static std::unique_ptr<Session> Adopt(int container, int group, int device, uint32_t ioas);
  ~Session() { Close(); }

  // IRQs, BAR mappings, DMA mappings, device, group, container; also what of it fails is done to the end.
  void Close();
  bool closed() const { return !device_.valid(); }

  bool iommufd() const { return iommufd_; }
  bool noiommu() const { return noiommu_; }
  int device_fd() const { return device_.get(); }
  int group_fd() const { return group_.get(); }
  // The container, or /dev/iommu.
  int container_fd() const { return container_.get(); }
  uint32_t ioas() const { return ioas_; }
  const vfio_device_info& info() const { return info_; }
  uint64_t pages() const { return pages_; }
  const std::vector<Area>& ranges() const { return ranges_; }  // offset: first, size: LAST address

  // DMA entries that are left in the container; -1 where the kernel does not say or has no limit.
  int64_t Available() const;

  void Map(const DmaRequest& request);
  // Returns the bytes that were unmapped. A failure leaves the mapping where it was.
  uint64_t Unmap(uint64_t iova, uint64_t size);

  RegionInfo Region(uint32_t index) const;
  IrqInfo Irq(uint32_t index) const;

  // Whole transfers; a short one is EIO. Throws SysError.
  void Read(uint32_t region, uint64_t offset, void* data, size_t size) const;
  void Write(uint32_t region, uint64_t offset, const void* data, size_t size) const;
  // One access of 1, 2, 4 or 8 bytes: through the mapped BAR where it is mapped, else by pread/pwrite.
  uint64_t Load(uint32_t region, uint64_t offset, unsigned width) const;
  void Store(uint32_t region, uint64_t offset, unsigned width, uint64_t value) const;
  // Maps what may be mapped of a region; returns the bytes.
  uint64_t MapRegion(uint32_t index);

  // Eventfds for count vectors from start on; they are the session's.
  std::vector<int> EnableIrq(uint32_t index, uint32_t start, uint32_t count);
  void DisableIrq(uint32_t index);
  void MaskIrq(uint32_t index, bool mask);

  // Sets the token that virtual functions of this physical function ask for. Throws SysError: ENOTTY without SR-IOV.
  void SetVfToken(const VfToken& token);

  void Reset();
  std::vector<ResetPeer> ResetPeers() const;
  // Resets the slot or bus; groups: descriptors of all groups concerned (none with iommufd).
  void HotReset(const std::vector<int>& groups);

 private:
  Session() = default;
  void Describe();
  void DescribeType1();
  void DescribeIoas();
  void SetIrqs(uint32_t flags, uint32_t index, uint32_t start, uint32_t count, const void* data, size_t size);
  void CheckOpen() const;
  uint8_t* Mapped(uint32_t region, uint64_t offset, unsigned width) const;

  struct Window {
    uint64_t offset;
    Mapping map;
  };

  bool iommufd_ = false, noiommu_ = false;
  Fd container_, group_, device_;
  std::string group_path_;
  uint32_t ioas_ = 0;
  vfio_device_info info_{};
  uint64_t pages_ = 0;
  std::vector<Area> ranges_;
  std::vector<RegionInfo> regions_;
  std::map<uint64_t, uint64_t> dma_;  // iova -> size
  std::map<uint32_t, std::vector<Window>> windows_;
  std::map<uint32_t, std::vector<Fd>> irqs_;
};

}  // namespace vioctl::vfio
