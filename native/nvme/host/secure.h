// TLS of a host (NVMe/TCP transport specification 1.0, 3.6.1): a Secure with a key.
#pragma once
#include <memory>

#include "crypto/tls.h"
#include "nvme/host/stream.h"

namespace vioctl::nvme::host {

// Puts TLS around a connection and does the handshake. Throws SysError: EKEYREJECTED, ETIMEDOUT and others.
std::unique_ptr<Stream> SecureStream(std::unique_ptr<Stream> below, crypto::Psk psk, const Wait& wait);

}  // namespace vioctl::nvme::host
