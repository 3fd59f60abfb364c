// The peer of test/bench/dma.ts: mappings of libvfn, by its own library, over a VFIO that says yes to everything.
// Arguments: the library, and how many operations prepare. Trace and output are those of sorted-array.cc.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

// What the library would ask the kernel: it finds these first.
extern "C" {
int ioctl(int, unsigned long request, ...) { return request == VFIO_CHECK_EXTENSION ? 1 : 0; }
int open64(const char*, int, ...) { return openat(AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC); }
ssize_t readlink(const char*, char* out, size_t size) {
  static const char group[] = "../../../../kernel/iommu_groups/1";
  if (size < sizeof group) return -1;
  memcpy(out, group, sizeof group);
  return sizeof group - 1;
}
}

namespace {

// Processor time, so that a busy machine does not count.
double Now() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

template <class Function>
Function* Find(void* library, const char* name) {
  auto* found = reinterpret_cast<Function*>(dlsym(library, name));
  if (found) return found;
  fprintf(stderr, "%s\n", dlerror());
  exit(1);
}

void* Pointer(uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::vector<uint64_t> trace;
  uint64_t words[8192];
  for (size_t n; (n = fread(words, sizeof *words, 8192, stdin)) > 0;) trace.insert(trace.end(), words, words + n);
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 1;
  auto* map = Find<int(void*, void*, size_t, uint64_t*, unsigned long)>(library, "iommu_map_vaddr");
  auto* unmap = Find<int(void*, void*, size_t*)>(library, "iommu_unmap_vaddr");
  void* context = Find<void*(const char*)>(library, "iommu_get_context")("0000:00:00.0");
  if (!context) return perror("iommu_get_context"), 1;
  const size_t prepare = strtoul(argv[2], nullptr, 10);
  const double start = Now();
  double middle = start;
  uint64_t sum = 0;
  for (size_t i = 0; i < trace.size() / 2; i++) {
    if (i == prepare) middle = Now();
    const uint64_t host = trace[2 * i], size = trace[2 * i + 1];
    uint64_t iova = 0;
    const int error = size ? map(context, Pointer(host), size, &iova, 0) : unmap(context, Pointer(host), nullptr);
    if (error) return perror(size ? "iommu_map_vaddr" : "iommu_unmap_vaddr"), 1;
    sum += iova;
  }
  printf("%.0f %.0f %llu\n", middle - start, Now() - middle, static_cast<unsigned long long>(sum));
}
