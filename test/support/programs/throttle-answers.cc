// Known answers of native/storage/throttle.h. Without an argument: the arithmetic of a bucket, without a clock; each expected
// value follows from docs/throttle.txt of QEMU (a bucket leaks at the average rate, a burst may fill it) and is worked out in
// the comment beside it. "order": requests are admitted in their order, and those that leave are not. Prints "ok", or each
// thing that is wrong.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "storage/throttle.h"

using vioctl::storage::Bucket;
using vioctl::storage::Rate;
using vioctl::storage::Throttle;

namespace {

constexpr uint64_t kMs = 1'000'000, kSecond = 1000 * kMs;
int wrong = 0;

void Equal(uint64_t found, uint64_t expected, const char* what) {
  if (found == expected) return;
  wrong++;
  printf("wrong: %s: %llu, expected %llu\n", what, static_cast<unsigned long long>(found),
         static_cast<unsigned long long>(expected));
}

// Requests of one unit that go until the bucket says wait.
uint64_t GoAt(Bucket& bucket, uint64_t now) {
  uint64_t count = 0;
  while (bucket.Wait(now) == 0 && count < 10'000'000) {
    bucket.Take(now, 1);
    count++;
  }
  return count;
}

// Requests that go in [from, to), looked for every step.
uint64_t Go(Bucket& bucket, uint64_t from, uint64_t to, uint64_t step) {
  uint64_t count = 0;
  for (uint64_t now = from; now < to; now += step) count += GoAt(bucket, now);
  return count;
}

Bucket Of(Rate rate) {
  Bucket bucket;
  bucket.Set(rate);
  return bucket;
}

void Arithmetic() {
  const uint64_t start = 1000 * kSecond;
  Bucket none;
  Equal(none.Wait(start), 0, "no limit");
  none.Take(start, 1 << 30);
  Equal(none.Wait(start), 0, "no limit, after much");

  // 1,000 a second: room for 100 (100 ms), and one that makes it over-full.
  Bucket plain = Of({1000, 0, 1});
  Equal(GoAt(plain, start), 101, "at once");
  Equal(plain.Wait(start), kMs, "until one has leaked");
  Equal(GoAt(plain, start + kMs), 1, "one a millisecond");
  Equal(Go(plain, start + kMs, start + 10 * kSecond + kMs, kMs), 9999, "ten seconds at the rate");
  // Idle time gives no more than the room.
  Equal(GoAt(plain, start + 1000 * kSecond), 101, "after idle time");

  // One request a second, whatever the room: the second one waits until the first has leaked down to 0.1.
  Bucket slow = Of({1, 0, 1});
  Equal(GoAt(slow, start), 1, "one");
  Equal(slow.Wait(start), 900 * kMs, "the next after 0.9 s");

  // A burst of 4,000 for a second: 4,000 and the one above it, then the rate.
  Bucket burst = Of({1000, 4000, 1});
  Equal(GoAt(burst, start), 4001, "a burst at once");
  Equal(Go(burst, start + kMs, start + kMs + kSecond, kMs), 1000, "then the rate");

  // The example of QEMU's document: 100 a second, bursts of 2,000 a second for 60 s. The main bucket has room for 120,000 and
  // gains 1,900 a second: full after 63.16 s. Until then 2,000 a second, and 200 (100 ms) of the second bucket at the begin.
  Bucket document = Of({100, 2000, 60});
  Equal(GoAt(document, start), 201, "no more than 100 ms of the burst at once");
  Equal(Go(document, start + kMs, start + 60 * kSecond + kMs, kMs), 120'000, "2,000 a second for 60 s");
  const uint64_t later = Go(document, start + 60 * kSecond + kMs, start + 64 * kSecond + kMs, kMs);
  // 120,201 went in 60 s, 6,000 leaked: 5,799 more fit, and 100 a second leak.
  Equal(later, 5799 + 400 + 1, "until the bucket is full");
  Equal(Go(document, start + 64 * kSecond + kMs, start + 74 * kSecond + kMs, kMs), 1000, "then 100 a second");

  // A large request goes at once and is paid for afterwards: 1 MiB at 1 MiB a second leaks down to 100 ms in 900 ms.
  Bucket bytes = Of({1 << 20, 0, 1});
  Equal(bytes.Wait(start), 0, "a large request");
  bytes.Take(start, 1 << 20);
  Equal(bytes.Wait(start), 900 * kMs, "the one behind it");
  // The largest numbers do not overflow.
  Bucket huge = Of({1, 1ull << 50, 3600});
  for (int i = 0; i < 4; i++) huge.Take(start, 1ull << 62);
  Equal(huge.Wait(start) < (1ull << 63), 1, "no overflow");
}

struct Request final : Throttle::Waiter {
  std::atomic<int>* clock = nullptr;
  std::atomic<int> at{-1};
  void Admitted() override { at = clock->fetch_add(1); }
};

void Order() {
  std::atomic<int> clock{0};
  std::vector<Request> requests(60);
  for (Request& request : requests) request.clock = &clock;
  const auto throttle = std::make_shared<Throttle>();
  throttle->Set({{10, 0, 1}, {}});  // slow enough for a process that loses its processor for seconds
  size_t now = 0;
  while (now < requests.size() && throttle->Enter(requests[now], 0)) now++;
  if (now < 2 || now > 40) wrong++, printf("wrong: %zu went at once, expected 2 and what leaked\n", now);
  std::vector<size_t> parked{now};
  for (size_t i = now + 1; i < requests.size(); i++)
    if (!throttle->Enter(requests[i], 0)) parked.push_back(i);
  Equal(parked.size(), requests.size() - now, "who comes later waits behind");
  // Every third one leaves: it is not admitted, unless it was on its way.
  std::vector<bool> left(requests.size());
  for (size_t i = 0; i < parked.size(); i += 3) left[parked[i]] = throttle->Leave(requests[parked[i]]);
  for (int tries = 0; throttle->waiting() > 0 && tries < 600; tries++)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Equal(throttle->waiting(), 0, "all have gone");
  int last = -1;
  for (const size_t i : parked) {
    for (int tries = 0; !left[i] && requests[i].at < 0 && tries < 600; tries++)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    Equal(requests[i].at < 0, left[i], "admitted, or left");
    if (left[i]) continue;
    if (requests[i].at <= last) wrong++, printf("wrong: request %zu is out of order\n", i);
    last = requests[i].at;
  }
  // New limits hold for those that wait: one an hour, then none.
  throttle->Set({{}, {1, 0, 1}});
  Request large, behind;
  large.clock = behind.clock = &clock;
  Equal(throttle->Enter(large, 3600), 1, "a large one goes");
  Equal(throttle->Enter(behind, 1), 0, "the next waits for an hour");
  throttle->Set({});
  for (int tries = 0; behind.at < 0 && tries < 600; tries++) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Equal(behind.at >= 0, 1, "without limits, it goes");
  Equal(throttle->active(), 0, "no limits");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "order") == 0)
    Order();
  else
    Arithmetic();
  if (wrong == 0) puts("ok");
  return wrong != 0;
}
