// Errors of system calls.
#pragma once
#include <cerrno>
#include <exception>
#include <string>

namespace vioctl {

// A failed system call. Thrown by code that knows nothing of JavaScript.
class SysError : public std::exception {
 public:
  // err: positive errno; call: name of the system call or ioctl (`VFIO_IOMMU_MAP_DMA`); detail: what it was done to.
  SysError(int err, const char* call, std::string detail = {});
  int err() const { return err_; }
  const char* call() const { return call_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  int err_;
  const char* call_;
  std::string text_;
};

// `EBUSY` for an errno value; `E123` for one that the table does not have.
std::string ErrnoName(int err);

// result unless it is -1, which throws errno as SysError.
template <typename T>
T Check(T result, const char* call, const char* detail = "") {
  if (result == static_cast<T>(-1)) throw SysError(errno, call, detail);
  return result;
}

}  // namespace vioctl
