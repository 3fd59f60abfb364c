// Data of a write that is received straight into the memory of its store. Only whole blocks are put there: a host that
// vanishes must not leave half of one.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vioctl::nvme {

struct Request;

// Of the H2CData PDU that is being received. What has come of a block that is not whole yet is kept here. A request
// counts what it has received (Request::received) behind each call. False, or no room: nothing more may be put into the
// store, so that the request needs a buffer (Leave()).
class Landing {
 public:
  // Whether the data of a PDU may go there: of a write that has no buffer so far, and is no half of a fused pair.
  static bool Suits(const Request& request, uint32_t length);

  // Where the next bytes are to be received from a socket, at most `left`. Landed() ends that, whatever has come.
  iovec Room(const Request& request, int socket, uint32_t left);
  bool Landed(Request& request, size_t size);
  // Takes the first bytes of the PDU, which were received with its header.
  bool Copy(Request& request, const uint8_t* data, size_t size);
  // Puts what is kept here where it belongs in a buffer for all data of the request.
  void Leave(const Request& request, uint8_t* buffer) const;

 private:
  bool Put(Request& request);

  std::vector<uint8_t> block_;
  bool entered_ = false;  // from Room() in the store until Landed()
};

}  // namespace vioctl::nvme
