#include "os/last_words.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

#include "common/error.h"

namespace vioctl::os {
namespace {

struct Words {
  std::string text, path;
};

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};

// A handler may read the words while they are replaced, so none are freed. A process sets a handful.
std::atomic<const Words*> g_words{nullptr};
std::array<struct sigaction, kSignals.size()> g_previous;
bool g_installed = false;

void OnSignal(int signal) {
  const int saved = errno;
  SayLastWords();
  for (size_t i = 0; i < kSignals.size(); i++)
    if (kSignals[i] == signal) ::sigaction(signal, &g_previous[i], nullptr);
  ::raise(signal);  // blocked until this returns: then what was there before takes it
  errno = saved;
}

void Install() {
  for (size_t i = 0; i < kSignals.size(); i++) {
    if (::sigaction(kSignals[i], nullptr, &g_previous[i]) < 0) throw SysError(errno, "sigaction");
    if (g_previous[i].sa_handler == SIG_IGN) continue;
    struct sigaction action {};
    action.sa_handler = OnSignal;
    action.sa_flags = SA_RESTART;
    ::sigfillset(&action.sa_mask);
    if (::sigaction(kSignals[i], &action, nullptr) < 0) throw SysError(errno, "sigaction");
  }
}

}  // namespace

void SetLastWords(const std::string& text, const std::string& path, bool caught) {
  g_words.store(text.empty() && path.empty() ? nullptr : new Words{text, path}, std::memory_order_release);
  if (caught || g_installed) return;
  g_installed = true;
  Install();
}

void SayLastWords() {
  const Words* words = g_words.exchange(nullptr, std::memory_order_acq_rel);
  if (words == nullptr) return;
  if (!words->path.empty()) ::unlink(words->path.c_str());
  // Nobody is left who could be told that this fails.
  if (!words->text.empty() && ::write(STDERR_FILENO, words->text.data(), words->text.size()) < 0) return;
}

}  // namespace vioctl::os
