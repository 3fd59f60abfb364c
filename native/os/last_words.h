// What a process still does when a signal ends it while its main thread is in a system call or a long loop, where no
// JavaScript can run.
#pragma once
#include <string>

namespace vioctl::os {

// From now on SIGINT, SIGTERM and SIGHUP write `text` to standard error and remove the file `path` (empty: neither)
// before they end the process as they would have done. Replaces what was set before. Signals that are ignored stay so.
// With `caught` the process handles these signals itself: then only SayLastWords() does it.
void SetLastWords(const std::string& text, const std::string& path, bool caught);

// Writes and removes what is set. Async-signal-safe.
void SayLastWords();

}  // namespace vioctl::os
