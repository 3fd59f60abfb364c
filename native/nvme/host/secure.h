// TLS of a host (NVMe/TCP transport specification 1.0, 3.6.1).
#pragma once
#include <vector>

#include "crypto/tls.h"
#include "nvme/host/stream.h"

namespace vioctl::nvme::host {

// Connects by TLS with one of these keys: the one that was taken last, else the next one that the target takes. Throws
// what Dial() does, and EKEYREJECTED.
Dialer SecureDialer(std::vector<crypto::Psk> keys);

}  // namespace vioctl::nvme::host
