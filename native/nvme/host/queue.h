// One queue of a controller, seen from the host: its connection, its PDUs, and the commands that are outstanding. All
// that comes is checked against the command that it names. One thread at a time uses a queue; nothing here waits,
// except Negotiate() and Call().
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nvme/command.h"
#include "nvme/host/stream.h"
#include "nvme/wire.h"

namespace vioctl::nvme::host {

// A command, part of the object that asks. It and its memory stay where they are until done() is called, once.
struct Command {
  Sqe sqe{};                     // CID, PSDT and SGL are filled in by the queue
  const iovec* parts = nullptr;  // the data, from byte `skip` of these on
  int count = 0;
  uint64_t skip = 0;
  uint32_t length = 0;  // bytes; 0: no data
  Direction direction = kNoData;
  uint64_t timeout = 0;                       // ns; 0: none
  void (*done)(Command*, int err) = nullptr;  // 0: `cqe` has the answer; EBADMSG: data with a wrong digest
  void* owner = nullptr;                      // of whoever asks
  Cqe cqe{};
  uint64_t started = 0;  // ns

  Status status() const { return static_cast<Status>(cqe.status >> 1); }

  // The rest is the queue's.
  uint64_t deadline = 0;
  uint32_t moved = 0, unsent = 0;  // unsent: pieces of its memory that wait for the socket
  uint64_t answered = 0;           // the data of its last R2T has left when so many bytes of the queue have
  uint16_t cid = 0;
  bool in_capsule = false, bad_digest = false, aborted = false;
};

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
  bool Flush();
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
  // Bytes on their way out: of `head_`, or memory of a command.
  struct Piece {
    const uint8_t* memory;  // nullptr: bytes of head_
    size_t size;
    Command* owner;  // whose memory it is
  };

  void Put(void* header, size_t hlen, Command* data, uint64_t from, uint32_t size);
  uint8_t* Head(size_t size);
  void Sent(size_t size);
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
  void Keep(Command* command);

  std::unique_ptr<Stream> stream_;
  QueueOptions options_;
  std::vector<Command*> slots_;  // by the low bits of the CID
  std::vector<uint16_t> turns_;  // the bits above them: a late completion is not taken for another command's
  std::vector<uint16_t> free_;
  int slot_bits_ = 0;

  std::vector<uint8_t> head_;  // headers, digests, small data
  size_t head_start_ = 0, head_end_ = 0;
  std::vector<Piece> out_;  // from out_start_ on
  size_t out_start_ = 0;
  uint64_t put_ = 0, sent_ = 0;  // bytes, since the beginning
  std::vector<iovec> iov_;
  std::vector<std::unique_ptr<uint8_t[]>> kept_;  // data of commands that ended before it had left
  size_t kept_bytes_ = 0;

  std::unique_ptr<uint8_t[]> in_;
  size_t have_ = 0;
  size_t ahead_;  // bytes that one read takes beyond known data
  // The C2HData whose data comes.
  Command* data_ = nullptr;
  uint32_t data_left_ = 0, data_size_ = 0, crc_ = 0;
  uint8_t data_flags_ = 0;
  bool digest_due_ = false;

  bool header_digest_ = false, data_digest_ = false, receiving_ = false;
  uint32_t align_ = 4;  // of data in a PDU
  uint32_t max_h2c_ = 0;
  uint32_t longest_ = kLeastLongest;  // data of a command, bytes
  static constexpr uint32_t kLeastLongest = 1 << 20;
};

// Bytes [from, from + size) of some parts, appended to a list.
void Slice(const iovec* parts, int count, uint64_t from, uint64_t size, std::vector<iovec>& out);

}  // namespace vioctl::nvme::host
