// One queue of a controller, seen from the host: its connection, its PDUs, and the commands that are outstanding. All
// that comes is checked against the command that it names. One thread at a time uses a queue; nothing here waits,
// except Negotiate() and Call().
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nvme/host/command.h"
#include "nvme/host/outbox.h"
#include "nvme/host/stream.h"
#include "nvme/wire.h"

namespace vioctl::nvme::host {

struct QueueOptions {
  uint16_t qid = 0;
  uint32_t entries = 32;  // as Connect says
  bool header_digest = false, data_digest = false;
  uint32_t in_capsule = 0;  // bytes of data that a command capsule takes
};

class Queue {
 public:
  Queue(std::unique_ptr<Stream> stream, const QueueOptions& options);
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  // Commands that are outstanding are forgotten: call Fail() first.
  ~Queue() = default;

  // ICReq and ICResp. Throws SysError: ENOTSUP for a digest that is not granted, EPROTO, ECONNRESET and others.
  void Negotiate(const Wait& wait);
  // Runs one command to its end; others that end meanwhile are told. Throws SysError as Receive(), EBADMSG.
  Cqe Call(Command& command, const Wait& wait);

  int fd() const { return stream_->fd(); }
  uint16_t qid() const { return options_.qid; }
  uint32_t depth() const { return options_.entries - 1; }
  uint32_t outstanding() const { return static_cast<uint32_t>(slots_.size() - free_.size()); }
  bool full() const { return free_.empty(); }
  // Whether bytes wait for the socket; whether some have come that the descriptor does not tell of.
  bool sending() const { return !out_.empty() || stream_->sending(); }
  bool pending() const { return stream_->pending(); }
  void set_in_capsule(uint32_t bytes) { options_.in_capsule = bytes; }

  // Takes a command; the queue is not full. Its bytes leave with Flush().
  void Submit(Command* command, uint64_t now);
  // Sends what the socket takes. True if anything left. Throws SysError.
  bool Flush() { return out_.Flush(*stream_); }
  // Takes what has come, one read. True if anything had. Throws SysError: EPROTO if the target broke the protocol (it
  // is told so), ECONNRESET.
  bool Receive();
  // Calls `each` for commands whose time has run out.
  template <typename F>
  void Expired(uint64_t now, F&& each) {
    for (Command* command : slots_)
      if (command && command->deadline != 0 && command->deadline <= now) each(command);
  }
  // The connection is lost: every command ends with this errno, in the order of submission is not promised.
  void Fail(int err);

 private:
  [[noreturn]] void Broken(const char* what, Fes fes, uint32_t fei, const void* header = nullptr, size_t size = 0);
  size_t Parse(const uint8_t* bytes, size_t size);
  size_t Header(const uint8_t* bytes, size_t left);
  size_t TakeData(const uint8_t* bytes, size_t left);
  void Terminated(const uint8_t* bytes, size_t left) const;
  Command* Find(uint16_t cid, uint32_t fei, const void* header);
  void StartData(const Data& header);
  void DataCame(size_t size);
  void FinishData();
  void Answer(const R2t& ask);
  void End(Command* command, int err);

  std::unique_ptr<Stream> stream_;
  QueueOptions options_;
  std::vector<Command*> slots_;  // by the low bits of the CID
  std::vector<uint16_t> turns_;  // the bits above them: a late completion is not taken for another command's
  std::vector<uint16_t> free_;
  int slot_bits_ = 0;

  Outbox out_;
  std::vector<iovec> iov_;

  std::unique_ptr<uint8_t[]> in_;
  size_t have_ = 0;
  size_t ahead_;  // bytes that one read takes beyond known data
  // The C2HData whose data comes.
  Command* data_ = nullptr;
  uint32_t data_left_ = 0, data_size_ = 0, crc_ = 0;
  uint8_t data_flags_ = 0;
  bool digest_due_ = false;

  uint32_t max_h2c_ = 0;
  uint32_t longest_ = kLeastLongest;  // data of a command, bytes
  static constexpr uint32_t kLeastLongest = 1 << 20;
};

}  // namespace vioctl::nvme::host
