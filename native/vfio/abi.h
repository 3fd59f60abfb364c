// What linux/vfio.h of older header packages lacks: VFIO device character devices and iommufd (Linux 6.6 and 6.2).
// Numbers and layouts are the kernel's ABI (include/uapi/linux/vfio.h, iommufd.h).
#pragma once
#include <linux/vfio.h>

#include <cstdint>

namespace vioctl::vfio {

struct BindIommufd {  // VFIO_DEVICE_BIND_IOMMUFD
  uint32_t argsz, flags;
  int32_t iommufd;
  uint32_t devid;
  uint64_t token;  // address of the 16 bytes of a VF token; Linux 6.17 and later read it
};
// The structure as kernels before the token know it: they take this size.
constexpr uint32_t kBindIommufdSize = 16;
constexpr uint32_t kBindToken = 1;  // VFIO_DEVICE_BIND_FLAG_TOKEN
struct AttachIommufd {              // VFIO_DEVICE_ATTACH_IOMMUFD_PT
  uint32_t argsz, flags, pt_id;
};
constexpr unsigned long kBindIommufd = _IO(VFIO_TYPE, VFIO_BASE + 18);
constexpr unsigned long kAttachIommufd = _IO(VFIO_TYPE, VFIO_BASE + 19);

struct IoasAlloc {  // IOMMU_IOAS_ALLOC
  uint32_t size, flags, ioas_id;
};
struct IoasRanges {  // IOMMU_IOAS_IOVA_RANGES
  uint32_t size, ioas_id, count, reserved;
  uint64_t ranges, alignment;
};
struct IoasMap {  // IOMMU_IOAS_MAP
  uint32_t size, flags, ioas_id, reserved;
  uint64_t va, length, iova;
};
struct IoasUnmap {  // IOMMU_IOAS_UNMAP
  uint32_t size, ioas_id;
  uint64_t iova, length;
};
constexpr unsigned long kIoasAlloc = _IO(';', 0x81);
constexpr unsigned long kIoasRanges = _IO(';', 0x84);
constexpr unsigned long kIoasMap = _IO(';', 0x85);
constexpr unsigned long kIoasUnmap = _IO(';', 0x86);
constexpr uint32_t kIoasFixed = 1, kIoasWriteable = 2, kIoasReadable = 4;

}  // namespace vioctl::vfio
