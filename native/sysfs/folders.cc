#include "sysfs/folders.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "os/directory.h"
#include "os/fd.h"

namespace vioctl::sysfs {
namespace {

Text ReadFile(int folder, const char* name, size_t most) {
  const Fd fd = os::TryOpenAt(folder, name, O_RDONLY);
  if (!fd.valid()) return {};
  char buffer[kLargestFile];
  ssize_t size;
  do size = ::read(fd.get(), buffer, most);
  while (size < 0 && errno == EINTR);
  if (size < 0) return {};
  return {true, std::string(buffer, static_cast<size_t>(size))};
}

Text ReadLink(int folder, const char* name) {
  char target[PATH_MAX];
  const ssize_t size = ::readlinkat(folder, name, target, sizeof target);
  return size < 0 ? Text{} : Text{true, std::string(target, static_cast<size_t>(size))};
}

Text WithoutNewlines(Text text) {
  while (!text.text.empty() && text.text.back() == '\n') text.text.pop_back();
  return text;
}

Folder ReadFolder(int base, const char* name, const Wanted& wanted) {
  Folder out;
  Fd fd = os::TryOpenAt(base, name, O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) return out;
  const int at = fd.get();
  const os::Directory dir = os::ReadDirectory(std::move(fd));
  if (!dir) return out;
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view text = entry->d_name;
    if (text != "." && text != "..") names.emplace_back(text);
  }
  std::sort(names.begin(), names.end());
  out.found = true;
  out.names.assign(1, '/');
  for (const std::string& one : names) out.names.append(one).push_back('/');
  out.target = ReadLink(base, name);
  const auto there = [&](const std::string& one) { return std::binary_search(names.begin(), names.end(), one); };
  for (const std::string& one : wanted.files)
    out.values.push_back(there(one) ? WithoutNewlines(ReadFile(at, one.c_str(), kLargestFile)) : Text{});
  for (const std::string& one : wanted.links) out.values.push_back(there(one) ? ReadLink(at, one.c_str()) : Text{});
  for (const std::string& one : wanted.headers)
    out.values.push_back(there(one) ? ReadFile(at, one.c_str(), kHeader) : Text{});
  return out;
}

}  // namespace

std::vector<Folder> ReadFolders(const std::string& base, const std::vector<std::string>& names, const Wanted& wanted) {
  std::vector<Folder> found(names.size());
  const Fd fd = os::TryOpen(base.c_str(), O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) return found;
  for (size_t i = 0; i < names.size(); i++) found[i] = ReadFolder(fd.get(), names[i].c_str(), wanted);
  return found;
}

}  // namespace vioctl::sysfs
