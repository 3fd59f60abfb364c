#include "common/error.h"

#include <cstring>

namespace vioctl {
namespace {

struct Name {
  int err;
  const char* name;
};

// An own table: strerrorname_np() would raise the glibc that the prebuilt addon needs to 2.32.
#define N(e) \
  { e, #e }
constexpr Name kNames[] = {
    N(EPERM),           N(ENOENT),       N(ESRCH),        N(EINTR),        N(EIO),          N(ENXIO),
    N(E2BIG),           N(ENOEXEC),      N(EBADF),        N(ECHILD),       N(EAGAIN),       N(ENOMEM),
    N(EACCES),          N(EFAULT),       N(ENOTBLK),      N(EBUSY),        N(EEXIST),       N(EXDEV),
    N(ENODEV),          N(ENOTDIR),      N(EISDIR),       N(EINVAL),       N(ENFILE),       N(EMFILE),
    N(ENOTTY),          N(ETXTBSY),      N(EFBIG),        N(ENOSPC),       N(ESPIPE),       N(EROFS),
    N(EMLINK),          N(EPIPE),        N(EDOM),         N(ERANGE),       N(EDEADLK),      N(ENAMETOOLONG),
    N(ENOLCK),          N(ENOSYS),       N(ENOTEMPTY),    N(ELOOP),        N(ENODATA),      N(ETIME),
    N(EPROTO),          N(EBADMSG),      N(EOVERFLOW),    N(EBADFD),       N(EILSEQ),       N(EUSERS),
    N(ENOTSOCK),        N(EDESTADDRREQ), N(EMSGSIZE),     N(EPROTOTYPE),   N(ENOPROTOOPT),  N(EPROTONOSUPPORT),
    N(ESOCKTNOSUPPORT), N(EOPNOTSUPP),   N(EPFNOSUPPORT), N(EAFNOSUPPORT), N(EADDRINUSE),   N(EADDRNOTAVAIL),
    N(ENETDOWN),        N(ENETUNREACH),  N(ENETRESET),    N(ECONNABORTED), N(ECONNRESET),   N(ENOBUFS),
    N(EISCONN),         N(ENOTCONN),     N(ESHUTDOWN),    N(ETIMEDOUT),    N(ECONNREFUSED), N(EHOSTDOWN),
    N(EHOSTUNREACH),    N(EALREADY),     N(EINPROGRESS),  N(ESTALE),       N(EREMOTEIO),    N(EDQUOT),
    N(ENOMEDIUM),       N(ECANCELED),    N(EOWNERDEAD),   N(EREMCHG),      N(EHWPOISON),
};
#undef N

}  // namespace

std::string ErrnoName(int err) {
  for (const Name& name : kNames)
    if (name.err == err) return name.name;
  return "E" + std::to_string(err);
}

SysError::SysError(int err, const char* call, std::string detail) : err_(err), call_(call) {
  char buffer[128];
  text_ = ErrnoName(err) + ": " + strerror_r(err, buffer, sizeof buffer) + ", " + call;
  if (!detail.empty()) text_ += " '" + detail + "'";
}

}  // namespace vioctl
