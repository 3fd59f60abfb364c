// The connections to one export of an NBD server. Of one thread.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "storage/remote/nbd_api.h"

namespace vioctl::storage::nbd {

// What a server says of an export. Bytes.
struct Facts {
  uint64_t size = 0;
  bool readonly = false, rotational = false;
  bool flush = false, fua = false, trim = false, zero = false, extents = false, several = false;
  uint32_t minimum = 1, preferred = 4096, maximum = 32 << 20;  // blocks; maximum: of the data of a command
};

// Called several times a second by whoever waits; gives up if it says no.
using GoesOn = std::function<bool()>;

// The size that a server tells somebody who only asks, on a connection of its own that ends before it could move data
// (NBD_OPT_INFO): no request waits for it. Waits until `deadline` (os::NowNs). Throws SysError.
uint64_t AskSize(const Api& api, const std::string& uri, uint64_t deadline, const GoesOn& goes_on);

class Session {
 public:
  static constexpr size_t kConnections = 4;  // where the server says that several see the same

  // Connects until `deadline` (os::NowNs). Throws SysError.
  Session(const Api& api, const std::string& uri, uint64_t deadline, const GoesOn& goes_on);
  // Whatever was under way is let go: no callback follows.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Facts& facts() const { return facts_; }
  size_t connections() const { return handles_.size(); }
  Handle* at(size_t index) const { return handles_[index]; }
  // Sends and receives what can be; waits at most `ms` for that, or until the eventfd is written. False: a connection
  // is lost, and the session with it. Another connection may still bring what the lost one would have done late.
  bool Turn(int wake, int ms);

 private:
  void Connect(const std::string& uri, uint64_t deadline, const GoesOn& goes_on);
  void Learn(Handle* handle);

  const Api& api_;
  std::vector<Handle*> handles_;
  Facts facts_;
};

}  // namespace vioctl::storage::nbd
