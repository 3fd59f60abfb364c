// Exports of native/nvme for authentication.
#pragma once
#include <napi.h>

namespace vioctl::nvme {

// dhPower(base, exponent, modulus): Promise<Buffer>, computed on a thread of libuv's pool
Napi::Value DhPower(const Napi::CallbackInfo& info);

// tlsClient(identity, key): one end of a TLS connection; tlsServer(identity, key): the other one, for tests
Napi::Value TlsClient(const Napi::CallbackInfo& info);
Napi::Value TlsServer(const Napi::CallbackInfo& info);
// tlsTake(tls, ciphertext): {plain, out, established, ended}
Napi::Value TlsTake(const Napi::CallbackInfo& info);
// tlsPut(tls, plaintext): ciphertext
Napi::Value TlsPut(const Napi::CallbackInfo& info);

}  // namespace vioctl::nvme
