// Authentication of queues by JavaScript, which has the keys: a connecting thread stops behind Connect, and JavaScript
// runs commands on the queue until it is content.
#pragma once
#include <napi.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "binding/core/handle.h"
#include "nvme/host/association.h"

namespace vioctl::nvme::host {

class Authenticator {
 public:
  // A command that JavaScript wants to be run, and its answer. Shared by both threads; `ended` is called once.
  struct Step {
    Sqe sqe{};
    std::vector<uint8_t> data;
    Direction direction = kNoData;
    Status status = kOk;
    int err = 0;
    std::function<void()> ended;
  };
  // One queue that waits to be authenticated.
  struct Exchange {
    Connected queue;
    std::mutex lock;
    std::condition_variable wake;
    std::deque<std::shared_ptr<Step>> steps;
    bool over = false, left = false;  // left: the thread does not wait any more
    int err = 0;                      // of the end
    // From JavaScript. A step that nobody waits for any more ends with ECANCELED.
    void Run(std::shared_ptr<Step> step);
    void End(int err);
  };

  // On a connecting thread, behind Connect. Throws SysError: EACCES, and those of the connection.
  void Authenticate(Queue& queue, const Connected& connected, const Wait& wait);

  // From JavaScript: the next exchange, nullptr if there is none now; `ended` is called when there is one, or at the
  // end.
  std::shared_ptr<Exchange> Take();
  bool Expect(std::function<void()> ended);
  void Close();
  bool closed();

 private:
  std::mutex lock_;
  std::deque<std::shared_ptr<Exchange>> waiting_;
  std::function<void()> expected_;
  bool closed_ = false;
};

// authenticatorNew(): handle
Napi::Value JsAuthenticatorNew(const Napi::CallbackInfo& info);
// authenticatorNext(handle): promise of {qid, authreq, run(sqe, data, toHost), end(errno)}; undefined when it is closed
Napi::Value JsAuthenticatorNext(const Napi::CallbackInfo& info);
// authenticatorClose(handle)
Napi::Value JsAuthenticatorClose(const Napi::CallbackInfo& info);

}  // namespace vioctl::nvme::host

namespace vioctl {
template <>
inline constexpr const char* kHandleName<nvme::host::Authenticator> = "authenticator";
}
