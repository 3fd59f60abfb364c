// The functions of OpenSSL that are used here beside its digests. Node exports them for addons; they are looked up at
// run time, because OpenSSL's headers are part of no npm package, and a Node may be built without OpenSSL.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vioctl::crypto {

// Big numbers, for Diffie-Hellman.
struct BigNumbers {
  void* (*contextNew)();
  void (*contextFree)(void* context);
  void* (*fresh)();
  void* (*fromBytes)(const uint8_t* bytes, int size, void* into);
  int (*toBytes)(const void* number, uint8_t* bytes, int size);
  void (*clearFree)(void* number);
  void (*setFlags)(void* number, int flags);
  int (*modExp)(void* result, const void* base, const void* exponent, const void* modulus, void* context, void* mont);

  // nullptr: this Node has not all of them.
  static const BigNumbers* Get();
};

// TLS. Objects of OpenSSL are void pointers here; the names are those of its functions, shortened.
struct Ssl {
  const void* (*serverMethod)();
  const void* (*clientMethod)();
  void* (*contextNew)(const void* method);
  long (*contextControl)(void* context, int command, long value, void* data);
  uint64_t (*contextOptions)(void* context, uint64_t options);
  int (*contextSuites)(void* context, const char* suites);
  int (*contextTickets)(void* context, size_t count);
  void (*contextHello)(void* context, int (*callback)(void* ssl, int* alert, void* data), void* data);
  void (*contextFind)(void* context, int (*callback)(void* ssl, const uint8_t* identity, size_t size, void** session));
  void (*contextUse)(void* context, int (*callback)(void* ssl, const void* digest, const uint8_t** identity,
                                                    size_t* size, void** session));
  void* (*create)(void* context);
  void (*destroy)(void* ssl);
  void (*acceptState)(void* ssl);
  void (*connectState)(void* ssl);
  int (*setExData)(void* ssl, int index, void* data);
  void* (*getExData)(const void* ssl, int index);
  int (*setSuites)(void* ssl, const char* suites);
  int (*helloExtension)(void* ssl, unsigned type, const uint8_t** data, size_t* size);
  int (*handshake)(void* ssl);
  int (*reused)(const void* ssl);
  int (*read)(void* ssl, void* data, size_t size, size_t* got);
  int (*write)(void* ssl, const void* data, size_t size, size_t* done);
  int (*shutdown)(void* ssl);
  int (*getError)(const void* ssl, int result);
  const void* (*cipherFind)(void* ssl, const uint8_t* id);
  void* (*session)(const void* ssl);
  void* (*sessionNew)();
  void (*sessionFree)(void* session);
  int (*sessionKey)(void* session, const uint8_t* key, size_t size);
  int (*sessionCipher)(void* session, const void* cipher);
  int (*sessionVersion)(void* session, int version);
  void (*setBio)(void* ssl, void* in, void* out);
  void* (*bioMethodNew)(int type, const char* name);
  int (*bioNewIndex)();
  int (*bioMethodWrite)(void* method, int (*callback)(void* bio, const char* data, size_t size, size_t* done));
  int (*bioMethodRead)(void* method, int (*callback)(void* bio, char* data, size_t size, size_t* got));
  int (*bioMethodControl)(void* method, long (*callback)(void* bio, int command, long value, void* data));
  void* (*bioNew)(const void* method);
  void (*bioSetData)(void* bio, void* data);
  void* (*bioData)(void* bio);
  void (*bioSetInit)(void* bio, int init);
  void (*bioSetFlags)(void* bio, int flags);
  void (*bioClearFlags)(void* bio, int flags);
  unsigned long (*peekError)();
  const char* (*reasonText)(unsigned long error);
  void (*clearErrors)();

  // nullptr: this Node has not all of them.
  static const Ssl* Get();
};

}  // namespace vioctl::crypto
