// A remote namespace as a source that servers can serve.
#pragma once
#include <memory>

#include "nvme/host/host.h"
#include "storage/store.h"

namespace vioctl::nvme::host {

struct SourceOptions : NamespaceOptions {
  bool readonly = false;
  bool unmap = false;  // writes of zeroes free their space
};

// Connects, and waits for it. A namespace that is write protected gives a store that is read-only. Throws SysError,
// CommandError.
std::shared_ptr<storage::Store> OpenSource(const SourceOptions& options);

// Of such a source (Host::paths, Host::Follow). Throw SysError EINVAL for another kind.
PathCount PathsOf(storage::Store& store);
void Follow(storage::Store& store, std::vector<Address> found);
// Targets that it leads to; none for another kind.
Hops HopsTo(storage::Store& store);

}  // namespace vioctl::nvme::host
