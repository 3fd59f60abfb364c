#include "os/netlink/netlink.h"

#include <sys/socket.h>

#include <vector>

#include "common/error.h"
#include "os/fd.h"

namespace vioctl::os {
namespace {

constexpr size_t kBuffer = 128 << 10;  // the kernel sends at most 32 KiB at once
constexpr int kTries = 8;

// Reads one answer to its end. False if the table changed meanwhile, so that some of it may be missing.
bool ReadAnswer(int fd, std::vector<char>& buffer, const char* name, const std::function<void(const nlmsghdr&)>& each) {
  for (bool whole = true;;) {
    const ssize_t size = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) throw SysError(size < 0 ? errno : EPROTO, "recv", name);
    auto left = static_cast<unsigned>(size);
    for (auto* m = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
      if (m->nlmsg_flags & NLM_F_DUMP_INTR) whole = false;
      if (m->nlmsg_type == NLMSG_DONE) return whole;
      if (m->nlmsg_type == NLMSG_ERROR) {
        if (m->nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))) throw SysError(EPROTO, name);
        const int error = static_cast<const nlmsgerr*>(NLMSG_DATA(m))->error;
        throw SysError(error < 0 ? -error : EPROTO, name);
      }
      each(*m);
    }
  }
}

}  // namespace

void NetlinkDump(int protocol, const nlmsghdr& request, const char* name, const std::function<void()>& begin,
                 const std::function<void(const nlmsghdr&)>& each) {
  const Fd fd(Check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "socket", name));
  std::vector<char> buffer(kBuffer);
  for (int i = 0; i < kTries; i++) {
    begin();
    Check(::send(fd.get(), &request, request.nlmsg_len, 0), "send", name);
    if (ReadAnswer(fd.get(), buffer, name, each)) return;
  }
}

}  // namespace vioctl::os
