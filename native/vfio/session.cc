#include "vfio/session.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "common/error.h"
#include "os/eventfd.h"
#include "vfio/chain.h"

namespace vioctl::vfio {
namespace {

// A kernel answer may not be larger than this; real ones are a few hundred bytes.
constexpr uint32_t kMostInfo = 1 << 20;

int Ioctl(int fd, unsigned long request, void* argument) {
  int result;
  do result = ::ioctl(fd, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

int Checked(int fd, unsigned long request, void* argument, const char* name) {
  return Check(Ioctl(fd, request, argument), name);
}

int Checked(int fd, unsigned long request, intptr_t argument, const char* name) {
  return Checked(fd, request, reinterpret_cast<void*>(argument), name);
}

Fd Open(const std::string& path) { return os::Open(path, O_RDWR); }

// Calls a VFIO info ioctl again with the size that the kernel asks for, so that capabilities fit.
template <class T>
std::vector<uint8_t> Info(int fd, unsigned long request, const T& head, const char* name) {
  std::vector<uint8_t> buffer(sizeof(T));
  for (;;) {
    T in = head;
    in.argsz = static_cast<uint32_t>(buffer.size());
    memcpy(buffer.data(), &in, sizeof in);
    Checked(fd, request, buffer.data(), name);
    uint32_t needed;
    memcpy(&needed, buffer.data(), sizeof needed);
    if (needed > kMostInfo) throw SysError(EPROTO, name, "the kernel asks for " + std::to_string(needed) + " bytes");
    if (needed <= buffer.size()) return buffer;
    buffer.assign(needed, 0);
  }
}

template <class T>
T Take(const std::vector<uint8_t>& buffer, size_t offset = 0) {
  T value{};
  if (offset > buffer.size() || buffer.size() - offset < sizeof value) throw SysError(EPROTO, "capabilities");
  memcpy(&value, buffer.data() + offset, sizeof value);
  return value;
}

}  // namespace

std::unique_ptr<Session> Session::OpenGroup(const std::string& container, const std::string& group,
                                            const std::string& name, bool noiommu, const Session* with) {
  std::unique_ptr<Session> session(new Session);
  session->noiommu_ = noiommu;
  session->group_path_ = group;
  const int type = noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU;
  if (with) {
    session->container_ = os::Duplicate(with->container_.get());
  } else {
    session->container_ = Open(container);
    if (Checked(session->container_.get(), VFIO_GET_API_VERSION, intptr_t{0}, "VFIO_GET_API_VERSION") !=
        VFIO_API_VERSION)
      throw SysError(ENOTSUP, "VFIO_GET_API_VERSION");
    if (Ioctl(session->container_.get(), VFIO_CHECK_EXTENSION, reinterpret_cast<void*>(static_cast<intptr_t>(type))) <=
        0)
      throw SysError(ENODEV, "VFIO_CHECK_EXTENSION", noiommu ? "noiommu" : "type1");
  }
  if (with && with->group_path_ == group) {
    session->group_ = os::Duplicate(with->group_.get());
  } else {
    session->group_ = Open(group);
    vfio_group_status status{sizeof status, 0};
    Checked(session->group_.get(), VFIO_GROUP_GET_STATUS, &status, "VFIO_GROUP_GET_STATUS");
    if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) throw SysError(EPERM, "VFIO_GROUP_GET_STATUS", "not viable");
    int container_fd = session->container_.get();
    Checked(session->group_.get(), VFIO_GROUP_SET_CONTAINER, &container_fd, "VFIO_GROUP_SET_CONTAINER");
  }
  if (!with) Checked(session->container_.get(), VFIO_SET_IOMMU, static_cast<intptr_t>(type), "VFIO_SET_IOMMU");
  session->device_ = Fd(Check(Ioctl(session->group_.get(), VFIO_GROUP_GET_DEVICE_FD, const_cast<char*>(name.c_str())),
                              "VFIO_GROUP_GET_DEVICE_FD", name.c_str()));
  os::SetCloseOnExec(session->device_.get());
  session->Describe();
  if (!noiommu) session->DescribeType1();
  return session;
}

namespace {
// Binds a device to an iommufd. Kernels before the token know neither its flag nor the size of the structure with it.
void BindTo(int device, int iommufd, const VfToken* token) {
  BindIommufd bind{kBindIommufdSize, 0, iommufd, 0, 0};
  if (token) {
    bind = {sizeof bind, kBindToken, iommufd, 0, reinterpret_cast<uint64_t>(token->data())};
    if (Ioctl(device, kBindIommufd, &bind) >= 0) return;
    if (errno != EINVAL) throw SysError(errno, "VFIO_DEVICE_BIND_IOMMUFD");
    bind = {kBindIommufdSize, 0, iommufd, 0, 0};
  }
  Checked(device, kBindIommufd, &bind, "VFIO_DEVICE_BIND_IOMMUFD");
}
}  // namespace

std::unique_ptr<Session> Session::OpenDevice(const std::string& iommu, const std::string& device, const Session* with,
                                             const VfToken* token) {
  std::unique_ptr<Session> session(new Session);
  session->iommufd_ = true;
  session->container_ = with ? os::Duplicate(with->container_.get()) : Open(iommu);
  session->device_ = Open(device);
  BindTo(session->device_.get(), session->container_.get(), token);
  if (with) {
    session->ioas_ = with->ioas_;
  } else {
    IoasAlloc alloc{sizeof alloc, 0, 0};
    Checked(session->container_.get(), kIoasAlloc, &alloc, "IOMMU_IOAS_ALLOC");
    session->ioas_ = alloc.ioas_id;
  }
  AttachIommufd attach{sizeof attach, 0, session->ioas_};
  Checked(session->device_.get(), kAttachIommufd, &attach, "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
  session->Describe();
  session->DescribeIoas();
  return session;
}

std::unique_ptr<Session> Session::Adopt(int container, int group, int device, uint32_t ioas) {
  std::unique_ptr<Session> session(new Session);
  session->iommufd_ = group < 0;
  session->container_ = os::Duplicate(container);
  if (group >= 0) session->group_ = os::Duplicate(group);
  session->device_ = os::Duplicate(device);
  session->ioas_ = ioas;
  session->Describe();
  if (session->iommufd_)
    session->DescribeIoas();
  else
    session->DescribeType1();
  return session;
}

void Session::Describe() {
  info_.argsz = sizeof info_;
  Checked(device_.get(), VFIO_DEVICE_GET_INFO, &info_, "VFIO_DEVICE_GET_INFO");
  for (uint32_t i = 0; i < std::min<uint32_t>(info_.num_regions, VFIO_PCI_NUM_REGIONS); i++) {
    try {
      regions_.push_back(Region(i));
    } catch (const SysError& error) {
      if (error.err() != EINVAL) throw;  // a region that the device does not have (VGA)
      regions_.push_back({i, 0, 0, 0, false, false, {}, 0, 0});
    }
  }
}

void Session::DescribeType1() {
  const auto buffer = Info<vfio_iommu_type1_info>(container_.get(), VFIO_IOMMU_GET_INFO, {}, "VFIO_IOMMU_GET_INFO");
  const auto info = Take<vfio_iommu_type1_info>(buffer);
  pages_ = info.flags & VFIO_IOMMU_INFO_PGSIZES ? info.iova_pgsizes : os::PageSize();
  if (info.flags & VFIO_IOMMU_INFO_CAPS) {
    const auto size = static_cast<uint32_t>(buffer.size());
    for (const Capability& cap : Chain(buffer.data(), size, sizeof info, info.cap_offset)) {
      if (cap.id != VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) continue;
      const auto head = Take<vfio_iommu_type1_info_cap_iova_range>(buffer, cap.offset);
      if (head.nr_iovas > (cap.size - sizeof head) / sizeof(vfio_iova_range)) throw SysError(EPROTO, "capabilities");
      for (uint32_t i = 0; i < head.nr_iovas; i++) {
        const auto range = Take<vfio_iova_range>(buffer, cap.offset + sizeof head + i * sizeof(vfio_iova_range));
        ranges_.push_back({range.start, range.end});
      }
    }
  }
  // Kernels before 5.4 do not say; 39 bits is what every VT-d has.
  if (ranges_.empty()) ranges_ = {{0, 0xfedfffff}, {0xfef00000, (uint64_t{1} << 39) - 1}};
}

void Session::DescribeIoas() {
  std::vector<uint64_t> words(2 * 64);
  for (;;) {
    const auto count = static_cast<uint32_t>(words.size() / 2);
    IoasRanges query{sizeof query, ioas_, count, 0, reinterpret_cast<uint64_t>(words.data()), 0};
    const int result = Ioctl(container_.get(), kIoasRanges, &query);
    if (result < 0 && errno != EMSGSIZE) throw SysError(errno, "IOMMU_IOAS_IOVA_RANGES");
    if (query.count > kMostInfo / 16) throw SysError(EPROTO, "IOMMU_IOAS_IOVA_RANGES");
    if (query.count > count) {
      words.assign(2 * query.count, 0);
      continue;
    }
    for (uint32_t i = 0; i < query.count; i++) ranges_.push_back({words[2 * i], words[2 * i + 1]});
    // iommufd tells the smallest page only; the large ones are those of every IOMMU that has it.
    pages_ = query.alignment | (query.alignment == 4096 ? 0x40200000 : 0);
    return;
  }
}

int64_t Session::Available() const {
  CheckOpen();
  if (iommufd_ || noiommu_) return -1;
  const auto buffer = Info<vfio_iommu_type1_info>(container_.get(), VFIO_IOMMU_GET_INFO, {}, "VFIO_IOMMU_GET_INFO");
  const auto info = Take<vfio_iommu_type1_info>(buffer);
  if (!(info.flags & VFIO_IOMMU_INFO_CAPS)) return -1;
  const auto size = static_cast<uint32_t>(buffer.size());
  for (const Capability& cap : Chain(buffer.data(), size, sizeof info, info.cap_offset))
    if (cap.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
      return Take<vfio_iommu_type1_info_dma_avail>(buffer, cap.offset).avail;
  return -1;
}

void Session::Map(const DmaRequest& request) {
  CheckOpen();
  if (noiommu_) throw SysError(ENOTSUP, "VFIO_IOMMU_MAP_DMA", "noiommu");
  if (iommufd_) {
    const uint32_t flags = kIoasFixed | (request.read ? kIoasReadable : 0) | (request.write ? kIoasWriteable : 0);
    IoasMap map{sizeof map, flags, ioas_, 0, request.va, request.size, request.iova};
    Checked(container_.get(), kIoasMap, &map, "IOMMU_IOAS_MAP");
  } else {
    const uint32_t flags =
        (request.read ? VFIO_DMA_MAP_FLAG_READ : 0u) | (request.write ? VFIO_DMA_MAP_FLAG_WRITE : 0u);
    vfio_iommu_type1_dma_map map{sizeof map, flags, request.va, request.iova, request.size};
    Checked(container_.get(), VFIO_IOMMU_MAP_DMA, &map, "VFIO_IOMMU_MAP_DMA");
  }
  dma_[request.iova] = request.size;
}

uint64_t Session::Unmap(uint64_t iova, uint64_t size) {
  CheckOpen();
  uint64_t unmapped;
  if (iommufd_) {
    IoasUnmap unmap{sizeof unmap, ioas_, iova, size};
    Checked(container_.get(), kIoasUnmap, &unmap, "IOMMU_IOAS_UNMAP");
    unmapped = unmap.length;
  } else {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.iova = iova;
    unmap.size = size;
    Checked(container_.get(), VFIO_IOMMU_UNMAP_DMA, &unmap, "VFIO_IOMMU_UNMAP_DMA");
    unmapped = unmap.size;
  }
  dma_.erase(iova);
  return unmapped;
}

RegionInfo Session::Region(uint32_t index) const {
  CheckOpen();
  vfio_region_info head{};
  head.index = index;
  const auto buffer = Info(device_.get(), VFIO_DEVICE_GET_REGION_INFO, head, "VFIO_DEVICE_GET_REGION_INFO");
  const auto info = Take<vfio_region_info>(buffer);
  RegionInfo region{index, info.flags, info.size, info.offset, false, false, {}, 0, 0};
  if (info.flags & VFIO_REGION_INFO_FLAG_CAPS) {
    for (const Capability& cap :
         Chain(buffer.data(), static_cast<uint32_t>(buffer.size()), sizeof info, info.cap_offset)) {
      if (cap.id == VFIO_REGION_INFO_CAP_MSIX_MAPPABLE) {
        region.msix_mappable = true;
      } else if (cap.id == VFIO_REGION_INFO_CAP_TYPE) {
        const auto type = Take<vfio_region_info_cap_type>(buffer, cap.offset);
        region.type = type.type, region.subtype = type.subtype;
      } else if (cap.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
        const auto sparse = Take<vfio_region_info_cap_sparse_mmap>(buffer, cap.offset);
        if (sparse.nr_areas > (cap.size - sizeof sparse) / sizeof(vfio_region_sparse_mmap_area))
          throw SysError(EPROTO, "capabilities");
        region.sparse = true;
        for (uint32_t i = 0; i < sparse.nr_areas; i++) {
          const size_t at = cap.offset + sizeof sparse + i * sizeof(vfio_region_sparse_mmap_area);
          const auto area = Take<vfio_region_sparse_mmap_area>(buffer, at);
          if (area.offset > info.size || area.size > info.size - area.offset) throw SysError(EPROTO, "capabilities");
          if (area.size) region.areas.push_back({area.offset, area.size});
        }
      }
    }
  }
  if (!region.sparse && (info.flags & VFIO_REGION_INFO_FLAG_MMAP) && info.size) region.areas.push_back({0, info.size});
  return region;
}

IrqInfo Session::Irq(uint32_t index) const {
  CheckOpen();
  vfio_irq_info info{sizeof info, 0, index, 0};
  Checked(device_.get(), VFIO_DEVICE_GET_IRQ_INFO, &info, "VFIO_DEVICE_GET_IRQ_INFO");
  return {info.index, info.flags, info.count};
}

void Session::CheckOpen() const {
  if (!device_.valid()) throw SysError(EBADF, "session", "closed");
}

namespace {

void CheckBounds(const std::vector<RegionInfo>& regions, uint32_t region, uint64_t offset, uint64_t size) {
  if (region >= regions.size() || regions[region].size == 0) throw SysError(ENXIO, "region", std::to_string(region));
  if (offset > regions[region].size || size > regions[region].size - offset)
    throw SysError(ERANGE, "region", std::to_string(offset));
}

}  // namespace

void Session::Read(uint32_t region, uint64_t offset, void* data, size_t size) const {
  CheckOpen();
  CheckBounds(regions_, region, offset, size);
  for (size_t done = 0; done < size;) {
    const auto at = static_cast<off_t>(regions_[region].offset + offset + done);
    const ssize_t n = ::pread(device_.get(), static_cast<char*>(data) + done, size - done, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw SysError(n < 0 ? errno : EIO, "pread", "region " + std::to_string(region));
    done += static_cast<size_t>(n);
  }
}

void Session::Write(uint32_t region, uint64_t offset, const void* data, size_t size) const {
  CheckOpen();
  CheckBounds(regions_, region, offset, size);
  for (size_t done = 0; done < size;) {
    const auto at = static_cast<off_t>(regions_[region].offset + offset + done);
    const ssize_t n = ::pwrite(device_.get(), static_cast<const char*>(data) + done, size - done, at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw SysError(n < 0 ? errno : EIO, "pwrite", "region " + std::to_string(region));
    done += static_cast<size_t>(n);
  }
}

uint8_t* Session::Mapped(uint32_t region, uint64_t offset, unsigned width) const {
  const auto windows = windows_.find(region);
  if (windows == windows_.end()) return nullptr;
  for (const Window& window : windows->second)
    if (offset >= window.offset && offset - window.offset + width <= window.map.size())
      return static_cast<uint8_t*>(window.map.get()) + (offset - window.offset);
  return nullptr;
}

uint64_t Session::Load(uint32_t region, uint64_t offset, unsigned width) const {
  CheckOpen();
  CheckBounds(regions_, region, offset, width);
  uint64_t value = 0;
  const volatile uint8_t* at = offset % width ? nullptr : Mapped(region, offset, width);
  if (!at) {
    Read(region, offset, &value, width);  // little-endian, as the bus is
    return value;
  }
  switch (width) {
    case 1:
      return *at;
    case 2:
      return *reinterpret_cast<const volatile uint16_t*>(at);
    case 4:
      return *reinterpret_cast<const volatile uint32_t*>(at);
    default:
      return *reinterpret_cast<const volatile uint64_t*>(at);
  }
}

void Session::Store(uint32_t region, uint64_t offset, unsigned width, uint64_t value) const {
  CheckOpen();
  CheckBounds(regions_, region, offset, width);
  volatile uint8_t* at = offset % width ? nullptr : Mapped(region, offset, width);
  if (!at) return Write(region, offset, &value, width);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // memory that the device reads next is written before
  switch (width) {
    case 1:
      *at = static_cast<uint8_t>(value);
      break;
    case 2:
      *reinterpret_cast<volatile uint16_t*>(at) = static_cast<uint16_t>(value);
      break;
    case 4:
      *reinterpret_cast<volatile uint32_t*>(at) = static_cast<uint32_t>(value);
      break;
    default:
      *reinterpret_cast<volatile uint64_t*>(at) = value;
  }
}

uint64_t Session::MapRegion(uint32_t index) {
  CheckOpen();
  CheckBounds(regions_, index, 0, 0);
  const RegionInfo& region = regions_[index];
  if (windows_.count(index)) return 0;
  int protection = 0;
  if (region.flags & VFIO_REGION_INFO_FLAG_READ) protection |= PROT_READ;
  if (region.flags & VFIO_REGION_INFO_FLAG_WRITE) protection |= PROT_WRITE;
  uint64_t mapped = 0;
  std::vector<Window> windows;
  for (const Area& area : region.areas) {
    if ((region.offset + area.offset) % os::PageSize()) continue;
    windows.push_back({area.offset, Mapping::Map(device_.get(), area.size, protection, MAP_SHARED,
                                                 static_cast<off_t>(region.offset + area.offset))});
    mapped += area.size;
  }
  windows_[index] = std::move(windows);
  return mapped;
}

void Session::SetIrqs(uint32_t flags, uint32_t index, uint32_t start, uint32_t count, const void* data, size_t size) {
  std::vector<uint8_t> buffer(sizeof(vfio_irq_set) + size);
  vfio_irq_set head{};
  head.argsz = static_cast<uint32_t>(buffer.size());
  head.flags = flags;
  head.index = index;
  head.start = start;
  head.count = count;
  memcpy(buffer.data(), &head, sizeof head);
  if (size) memcpy(buffer.data() + sizeof head, data, size);
  Checked(device_.get(), VFIO_DEVICE_SET_IRQS, buffer.data(), "VFIO_DEVICE_SET_IRQS");
}

std::vector<int> Session::EnableIrq(uint32_t index, uint32_t start, uint32_t count) {
  CheckOpen();
  std::vector<Fd> owned;
  std::vector<int32_t> fds;
  for (uint32_t i = 0; i < count; i++) {
    owned.push_back(os::NewEventfd());
    fds.push_back(owned.back().get());
  }
  SetIrqs(VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index, start, count, fds.data(),
          fds.size() * sizeof fds[0]);
  auto& held = irqs_[index];
  for (Fd& fd : owned) held.push_back(std::move(fd));
  return std::vector<int>(fds.begin(), fds.end());
}

void Session::DisableIrq(uint32_t index) {
  CheckOpen();
  SetIrqs(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 0, nullptr, 0);
  irqs_.erase(index);
}

void Session::MaskIrq(uint32_t index, bool mask) {
  CheckOpen();
  const uint32_t action = mask ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK;
  SetIrqs(VFIO_IRQ_SET_DATA_NONE | action, index, 0, 1, nullptr, 0);
}

void Session::SetVfToken(const VfToken& token) {
  CheckOpen();
  // struct vfio_device_feature ends in the data of the feature
  std::array<uint8_t, sizeof(vfio_device_feature) + sizeof token> buffer{};
  vfio_device_feature head{};
  head.argsz = buffer.size();
  head.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN;
  memcpy(buffer.data(), &head, sizeof head);
  memcpy(buffer.data() + sizeof head, token.data(), token.size());
  Checked(device_.get(), VFIO_DEVICE_FEATURE, buffer.data(), "VFIO_DEVICE_FEATURE_PCI_VF_TOKEN");
}

void Session::Reset() {
  CheckOpen();
  Checked(device_.get(), VFIO_DEVICE_RESET, intptr_t{0}, "VFIO_DEVICE_RESET");
}

std::vector<ResetPeer> Session::ResetPeers() const {
  CheckOpen();
  std::vector<uint8_t> buffer(sizeof(vfio_pci_hot_reset_info) + 64 * sizeof(vfio_pci_dependent_device));
  for (;;) {
    vfio_pci_hot_reset_info head{};
    head.argsz = static_cast<uint32_t>(buffer.size());
    memcpy(buffer.data(), &head, sizeof head);
    const int result = Ioctl(device_.get(), VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, buffer.data());
    if (result < 0 && errno != ENOSPC) throw SysError(errno, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO");
    head = Take<vfio_pci_hot_reset_info>(buffer);
    const uint64_t needed = sizeof head + uint64_t{head.count} * sizeof(vfio_pci_dependent_device);
    if (needed > kMostInfo) throw SysError(EPROTO, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO");
    if (result < 0) {
      buffer.assign(needed, 0);
      continue;
    }
    std::vector<ResetPeer> peers;
    for (uint32_t i = 0; i < head.count; i++) {
      const auto peer = Take<vfio_pci_dependent_device>(buffer, sizeof head + i * sizeof(vfio_pci_dependent_device));
      peers.push_back({peer.group_id, peer.segment, peer.bus, peer.devfn});
    }
    return peers;
  }
}

void Session::HotReset(const std::vector<int>& groups) {
  CheckOpen();
  std::vector<uint8_t> buffer(sizeof(vfio_pci_hot_reset) + groups.size() * sizeof(int32_t));
  vfio_pci_hot_reset head{};
  head.argsz = static_cast<uint32_t>(buffer.size());
  head.count = static_cast<uint32_t>(groups.size());
  memcpy(buffer.data(), &head, sizeof head);
  if (!groups.empty()) memcpy(buffer.data() + sizeof head, groups.data(), groups.size() * sizeof(int32_t));
  Checked(device_.get(), VFIO_DEVICE_PCI_HOT_RESET, buffer.data(), "VFIO_DEVICE_PCI_HOT_RESET");
}

void Session::Close() {
  if (!device_.valid()) {
    group_.Reset();
    container_.Reset();
    return;
  }
  for (const auto& [index, fds] : irqs_) {
    vfio_irq_set none{};
    none.argsz = sizeof none;
    none.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    none.index = index;
    Ioctl(device_.get(), VFIO_DEVICE_SET_IRQS, &none);
  }
  irqs_.clear();
  windows_.clear();
  while (!dma_.empty()) {
    const auto [iova, size] = *dma_.begin();
    try {
      Unmap(iova, size);
    } catch (const SysError&) {
      dma_.erase(iova);  // closing the container unmaps what is left
    }
  }
  device_.Reset();
  group_.Reset();
  container_.Reset();
}

}  // namespace vioctl::vfio
