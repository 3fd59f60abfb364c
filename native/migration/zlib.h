// The zlib that is in every Node process, found at run time: the addon links nothing and needs no header.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace vioctl::migration {

class Inflater {
 public:
  enum Format { kZlib = 15, kGzip = 15 + 16 };  // windowBits of inflateInit2
  enum Status { kMore, kDone, kBad };
  struct Result {
    Status status;
    size_t used;  // input bytes taken
    size_t made;  // output bytes written
  };

  Inflater();
  ~Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Begins a new stream. Throws SysError (ENOSYS) if the process has no zlib.
  void Start(Format format);
  // Inflates what fits.
  Result Run(const uint8_t* in, size_t in_size, uint8_t* out, size_t out_size);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vioctl::migration
