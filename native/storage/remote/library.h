// Libraries that are loaded when their source is used (LGPL: nothing of them is linked or carried).
#pragma once

namespace vioctl::storage {

class Library {
 public:
  // Throws SysError: ELIBACC of "dlopen" if it cannot be loaded.
  explicit Library(const char* name);
  // Fills in a pointer to a function. Throws SysError: ELIBBAD of "dlsym" if the library lacks it.
  template <typename F>
  void Get(F*& function, const char* symbol) const {
    function = reinterpret_cast<F*>(Find(symbol));
  }

 private:
  void* Find(const char* symbol) const;

  void* handle_;  // stays loaded: threads of the library may outlive whoever used it
};

}  // namespace vioctl::storage
