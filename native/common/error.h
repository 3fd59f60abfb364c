// Errors of system calls, and their way to JavaScript: the same `code`, `errno` and `syscall` that Node's own carry.
#pragma once
#include <napi.h>

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

// The JavaScript error of a SysError: message `EBUSY: text, call 'detail'`, code, errno (negative, as Node's), syscall.
Napi::Error ToJs(Napi::Env env, const SysError& error);

using Method = Napi::Value (*)(const Napi::CallbackInfo&);

// Wraps an exported function: SysError and std::exception become JavaScript errors.
template <Method F>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  try {
    return F(info);
  } catch (const SysError& error) {
    throw ToJs(info.Env(), error);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

}  // namespace vioctl
