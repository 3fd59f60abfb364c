// PDUs on their way to the target: headers, digests and small data in one buffer, larger data where it lies.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nvme/host/stream.h"

namespace vioctl::nvme::host {

struct Command;

constexpr uint32_t kDigest = 4;  // bytes of a header or data digest

class Outbox {
 public:
  // What ICResp agreed on: digests, and the alignment of data in a PDU.
  bool header_digest = false, data_digest = false;
  uint32_t align = 4;

  bool empty() const { return out_.empty(); }
  // Bytes since the beginning that were put, and that the stream has taken.
  uint64_t put() const { return put_; }
  uint64_t sent() const { return sent_; }

  // Room for bytes behind everything else, valid until the next call.
  uint8_t* Head(size_t size);
  // A PDU: header with its digest, padding, `size` bytes of a command's data with their digest. PLEN, PDO and the
  // digest flags are set here.
  void Put(void* header, size_t hlen, Command* data, uint64_t from, uint32_t size);
  // Sends what the stream takes. True if anything left. Throws SysError.
  bool Flush(Stream& stream);
  // A command has ended although some of its data waits here: the bytes must still be sent, and its memory is not ours
  // any more. False: too many bytes are kept already.
  [[nodiscard]] bool Keep(Command* command);
  // Whatever waits is never sent.
  void Forget();

 private:
  // Bytes of `head_`, or memory of a command.
  struct Piece {
    const uint8_t* memory;  // nullptr: bytes of head_
    size_t size;
    Command* owner;  // whose memory it is
  };

  void Sent(size_t size);

  std::vector<uint8_t> head_;  // headers, digests, small data
  size_t head_start_ = 0, head_end_ = 0;
  std::vector<Piece> out_;  // from out_start_ on
  size_t out_start_ = 0;
  uint64_t put_ = 0, sent_ = 0;
  std::vector<iovec> iov_;
  std::vector<std::unique_ptr<uint8_t[]>> kept_;  // data of commands that ended before it had left
  size_t kept_bytes_ = 0;
};

// Bytes [from, from + size) of some parts, appended to a list.
void Slice(const iovec* parts, int count, uint64_t from, uint64_t size, std::vector<iovec>& out);

}  // namespace vioctl::nvme::host
