// The files of several sources in the file table of one ring. Of the ring's thread.
//
// A slot holds its file open, with its lock, until it is emptied. So whoever closes a source has Clear() called, and
// Sweep() finds what was forgotten.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "storage/store.h"
#include "uring/ring.h"

namespace vioctl::storage {

class RingFiles {
 public:
  static constexpr uint32_t kSlots = 1024;  // at most: further sources are used by their descriptors

  // Whether the kernel lets a file go that was taken out of a table. Kernels before 6.14 keep it until every earlier
  // request of the ring has ended: one source that hangs would keep all others locked.
  static bool Suits(const uring::Ring& ring) { return ring.features() & uring::abi::kFeatRwAttr; }

  // `wake`: an eventfd that is signalled when a source was opened anew; Refresh() follows. Both outlive this.
  RingFiles(uring::Ring& ring, int wake);
  ~RingFiles() { Clear(); }
  RingFiles(const RingFiles&) = delete;
  RingFiles& operator=(const RingFiles&) = delete;

  // The slot of a source's file as it is now, or -1: use its descriptor. For one entry of the ring, at once.
  int SlotOf(const std::shared_ptr<Store>& store);
  // Puts files that were opened anew in place of those before.
  void Refresh();
  // Empties the slots of sources that are gone.
  void Sweep();
  // Empties all slots. Entries that the kernel has not taken fail with EBADF; those under way end on their files.
  void Clear();

 private:
  struct Slot {
    uint32_t index;
    uint32_t opened;
    std::weak_ptr<Store> store;
  };
  int Add(const std::shared_ptr<Store>& store);
  bool Put(Slot& slot, const Store& store);
  void Empty(const Slot& slot);

  uring::Ring& ring_;
  const int wake_;
  std::unordered_map<uint64_t, Slot> slots_;  // by Store::id()
  std::vector<uint32_t> free_;
};

}  // namespace vioctl::storage
