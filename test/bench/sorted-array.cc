// The reference of test/bench/dma.ts: mappings in one array sorted by host address, binary search, one element more
// and a memmove for every change, device addresses from a mark that only rises. Written from that description.
// Reads a trace from stdin (pairs of 64-bit words: host address; size, or 0 to remove) and prints
// "PREPARE MEASURED RESULT": nanoseconds of processor time for the first N and for the remaining operations, and a checksum.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

namespace {

struct Entry {
  uint64_t host, size, iova;
};

struct Table {
  Entry* entries = nullptr;
  size_t count = 0;
  uint64_t mark = 0x10000;

  // Index of the last entry at or below host, plus one.
  size_t Find(uint64_t host) const {
    size_t low = 0, high = count;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (entries[middle].host <= host)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  uint64_t Map(uint64_t host, uint64_t size) {
    const size_t at = Find(host);
    if (at > 0 && entries[at - 1].host + entries[at - 1].size > host) abort();
    entries = static_cast<Entry*>(realloc(entries, (count + 1) * sizeof(Entry)));
    memmove(entries + at + 1, entries + at, (count - at) * sizeof(Entry));
    entries[at] = {host, size, mark};
    mark += size;
    count++;
    return entries[at].iova;
  }

  void Unmap(uint64_t host) {
    const size_t at = Find(host);
    if (at == 0 || entries[at - 1].host != host) abort();
    memmove(entries + at - 1, entries + at, (count - at) * sizeof(Entry));
    count--;
    if (count > 0) entries = static_cast<Entry*>(realloc(entries, count * sizeof(Entry)));
  }
};

// Processor time, so that a busy machine does not count.
double Now() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

double Run(Table& table, const uint64_t* trace, size_t count, uint64_t* sum) {
  const double start = Now();
  for (size_t i = 0; i < count; i++) {
    if (trace[2 * i + 1])
      *sum += table.Map(trace[2 * i], trace[2 * i + 1]);
    else
      table.Unmap(trace[2 * i]);
  }
  return Now() - start;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const size_t prepare = strtoul(argv[1], nullptr, 10);
  std::vector<uint64_t> trace;
  uint64_t words[8192];
  for (size_t n; (n = fread(words, sizeof *words, 8192, stdin)) > 0;) trace.insert(trace.end(), words, words + n);
  Table table;
  uint64_t sum = 0;
  const double first = Run(table, trace.data(), prepare, &sum);
  const double rest = Run(table, trace.data() + 2 * prepare, trace.size() / 2 - prepare, &sum);
  printf("%.0f %.0f %llu\n", first, rest, static_cast<unsigned long long>(sum));
}
