// Many folders of sysfs in one crossing: of thousands of devices, the calls from JavaScript would be most of the work.
#pragma once
#include <string>
#include <vector>

namespace vioctl::sysfs {

// What to read in each folder, by names without a slash.
struct Wanted {
  std::vector<std::string> files;    // contents as one read(2) gives them, without the newlines at their end
  std::vector<std::string> links;    // targets
  std::vector<std::string> headers;  // the first kHeader bytes
};

constexpr size_t kLargestFile = 4096;  // sysfs shows no more than a page
constexpr size_t kHeader = 64;         // of a config space: what everybody may read

struct Text {
  bool found = false;
  std::string text;
};

struct Folder {
  bool found = false;
  std::string names;         // sorted, with a slash before and behind each: "/class/config/"
  Text target;               // of the folder's own name, if that is a link
  std::vector<Text> values;  // files, links, headers, in the order wanted; not found: absent, or not to be read
};

// Folders of `base`. Attributes that may block (detached.h) are not for this.
std::vector<Folder> ReadFolders(const std::string& base, const std::vector<std::string>& names, const Wanted& wanted);

}  // namespace vioctl::sysfs
