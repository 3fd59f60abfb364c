/* ring-setups: rings that the addon does not open. Prints "ok WHAT", "lacks WHAT" (older kernel) or "bad WHAT RESULT". */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SETUP_NO_MMAP (1u << 14)
#define SETUP_REGISTERED_FD_ONLY (1u << 15)
#define ENTER_EXT_ARG_REG (1u << 6)
#define REGISTER_MEM_REGION 34
#define USE_REGISTERED_RING (1u << 31)

struct region_desc {
  uint64_t user_addr, size;
  uint32_t flags, id;
  uint64_t mmap_offset, resv[4];
};
struct mem_region_reg {
  uint64_t region_uptr, flags, resv[2];
};
struct reg_wait {
  int64_t sec, nsec;
  uint32_t min_wait_usec, flags;
  uint64_t sigmask;
  uint32_t sigmask_sz, pad[3];
  uint64_t pad2[2];
};

static int setup(unsigned entries, struct io_uring_params *p) {
  long r = syscall(__NR_io_uring_setup, entries, p);
  return r < 0 ? -errno : (int)r;
}
static int enter(int fd, unsigned submit, unsigned want, unsigned flags, void *arg, size_t size) {
  long r = syscall(__NR_io_uring_enter, fd, submit, want, flags, arg, size);
  return r < 0 ? -errno : (int)r;
}
static int reg(int fd, unsigned opcode, void *arg, unsigned nr) {
  long r = syscall(__NR_io_uring_register, fd, opcode, arg, nr);
  return r < 0 ? -errno : (int)r;
}
static void *pages(size_t size) {
  return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
}
static void say(int good, const char *what, int result) {
  if (good)
    printf("ok %s\n", what);
  else
    printf("bad %s %d\n", what, result);
}

/* Memory of the program, and no descriptor: the ring is an index of the thread. */
static void registered_only(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  struct io_uring_params p;
  memset(&p, 0, sizeof p);
  p.flags = SETUP_NO_MMAP | SETUP_REGISTERED_FD_ONLY;
  char *rings = pages(page), *sqes = pages(page);
  p.cq_off.resv2 = (uint64_t)(uintptr_t)rings; /* user_addr */
  p.sq_off.resv2 = (uint64_t)(uintptr_t)sqes;
  int fd = setup(4, &p);
  if (fd == -EINVAL) {
    printf("lacks a ring without a descriptor\n");
    return;
  }
  say(fd >= 0 && fd < 16, "a ring without a descriptor", fd);
  if (fd < 0) return;
  unsigned *array = (unsigned *)(rings + p.sq_off.array), *tail = (unsigned *)(rings + p.sq_off.tail);
  struct io_uring_sqe *sqe = (struct io_uring_sqe *)sqes;
  memset(sqe, 0, sizeof *sqe);
  sqe->opcode = IORING_OP_NOP;
  sqe->user_data = 77;
  array[0] = 0;
  __atomic_store_n(tail, 1, __ATOMIC_RELEASE);
  int r = enter(fd, 1, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING, NULL, 0);
  say(r == 1, "a request through its index", r);
  struct io_uring_cqe *cqe = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
  say(cqe->user_data == 77 && cqe->res == 0, "its completion in the program's memory", cqe->res);
  int pipefd[2];
  if (pipe(pipefd) < 0) return;
  r = reg(fd, IORING_REGISTER_FILES | USE_REGISTERED_RING, pipefd, 2);
  say(r == 0, "a register call through its index", r);
  r = reg(fd, IORING_UNREGISTER_FILES, NULL, 0);
  say(r < 0, "its index is no descriptor", r);
}

/* Waits whose arguments lie in a region that was registered before. */
static void registered_wait(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  struct io_uring_params p;
  memset(&p, 0, sizeof p);
  p.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int fd = setup(4, &p);
  if (fd < 0) {
    printf("lacks a ring for registered waits\n");
    return;
  }
  struct reg_wait *waits = pages(page);
  waits[0].nsec = 5000000;
  waits[0].flags = 1; /* IORING_REG_WAIT_TS */
  struct region_desc desc;
  memset(&desc, 0, sizeof desc);
  desc.user_addr = (uint64_t)(uintptr_t)waits;
  desc.size = page;
  desc.flags = 1; /* IORING_MEM_REGION_TYPE_USER */
  struct mem_region_reg region;
  memset(&region, 0, sizeof region);
  region.region_uptr = (uint64_t)(uintptr_t)&desc;
  region.flags = 1; /* IORING_MEM_REGION_REG_WAIT_ARG */
  int r = reg(fd, REGISTER_MEM_REGION, &region, 1);
  if (r == -EINVAL) {
    printf("lacks registered waits\n");
    close(fd);
    return;
  }
  say(r == 0, "a region for waits", r);
  r = reg(fd, REGISTER_MEM_REGION, &region, 1);
  say(r == -EBUSY, "a second region", r);
  r = reg(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
  say(r == 0, "its start", r);
  unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | ENTER_EXT_ARG_REG;
  r = enter(fd, 0, 1, flags, (void *)0, sizeof(struct reg_wait));
  say(r == -ETIME, "a registered wait", r);
  r = enter(fd, 0, 1, flags, (void *)(uintptr_t)page, sizeof(struct reg_wait));
  say(r == -EFAULT, "a wait behind the region", r);
  r = enter(fd, 0, 1, flags, (void *)0, 8);
  say(r == -EINVAL, "a wait of another size", r);
  close(fd);
}

/* A ring of four entries with a descriptor, for one request at a time. */
struct ring {
  int fd;
  unsigned *sq_tail, *cq_head;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  unsigned cq_mask;
};
static int start(struct ring *ring) {
  struct io_uring_params p;
  memset(&p, 0, sizeof p);
  ring->fd = setup(4, &p);
  if (ring->fd < 0) return ring->fd;
  size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
  size_t size = sq > cq ? sq : cq; /* IORING_FEAT_SINGLE_MMAP, 5.4 */
  char *rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
  ring->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
  if (rings == MAP_FAILED || (void *)ring->sqes == MAP_FAILED) return -errno;
  ring->sq_tail = (unsigned *)(rings + p.sq_off.tail);
  ring->cq_head = (unsigned *)(rings + p.cq_off.head);
  ring->cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
  ring->cq_mask = p.cq_entries - 1;
  for (unsigned i = 0; i < p.sq_entries; i++) ((unsigned *)(rings + p.sq_off.array))[i] = i;
  return 0;
}
/* Returns its result; `flags` gets the completion's. */
static int once(struct ring *ring, const struct io_uring_sqe *sqe, unsigned *flags) {
  unsigned tail = *ring->sq_tail;
  ring->sqes[tail & 3] = *sqe;
  __atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
  int r;
  do r = enter(ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
  while (r == -EINTR);
  if (r < 1) return r;
  unsigned head = *ring->cq_head;
  const struct io_uring_cqe *cqe = &ring->cqes[head & ring->cq_mask];
  r = cqe->res;
  if (flags) *flags = cqe->flags;
  __atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
  return r;
}
static struct io_uring_sqe request(int opcode, int fd, void *address, unsigned length) {
  struct io_uring_sqe sqe;
  memset(&sqe, 0, sizeof sqe);
  sqe.opcode = (unsigned char)opcode;
  sqe.fd = fd;
  sqe.addr = (uint64_t)(uintptr_t)address;
  sqe.len = length;
  return sqe;
}

/* A registered buffer of hugepages that begins and ends inside of them: reads and writes across their border. */
static void hugepages(void) {
  const size_t huge = 2 << 20, begin = 4096 + 100, length = 60000;
  struct ring ring;
  int r = start(&ring), in = memfd_create("in", 0), out = memfd_create("out", 0);
  if (r < 0 || in < 0 || out < 0) {
    say(0, "a ring for hugepages", r);
    return;
  }
  char *arena = mmap(NULL, 3 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char *first = (char *)(((uintptr_t)arena + huge - 1) & ~(huge - 1));
  if (arena == MAP_FAILED || madvise(first, 2 * huge, MADV_HUGEPAGE) < 0) {
    printf("lacks hugepages\n");
    return;
  }
  memset(first, 0xee, 2 * huge);
  static char data[60000], back[60000];
  for (size_t i = 0; i < length; i++) data[i] = (char)(i * 7 + (i >> 8));
  if (write(in, data, length) != (ssize_t)length) return;
  struct iovec {
    void *base;
    size_t length;
  } whole = {first + begin, huge + 100000};
  r = reg(ring.fd, IORING_REGISTER_BUFFERS, &whole, 1);
  say(r == 0, "a buffer of hugepages", r);
  char *part = first + huge - 30001;
  struct io_uring_sqe sqe = request(IORING_OP_READ_FIXED, in, part, (unsigned)length);
  r = once(&ring, &sqe, NULL);
  say(r == (int)length && memcmp(part, data, length) == 0, "a read across two hugepages", r);
  size_t wrong = 0;
  for (char *at = first; at < first + 2 * huge; at++) wrong += (at < part || at >= part + length) && *at != (char)0xee;
  say(wrong == 0, "nothing beside it", (int)wrong);
  sqe = request(IORING_OP_WRITE_FIXED, out, part, (unsigned)length);
  r = once(&ring, &sqe, NULL);
  say(r == (int)length && pread(out, back, length, 0) == (ssize_t)length && memcmp(back, data, length) == 0, "a write from two hugepages", r);
  sqe = request(IORING_OP_READ_FIXED, in, first + begin + whole.length - 8, 9);
  r = once(&ring, &sqe, NULL);
  say(r == -EFAULT, "a read behind the end, inside the hugepage", r);
  sqe.addr = (uint64_t)(uintptr_t)(first + begin - 1);
  r = once(&ring, &sqe, NULL);
  say(r == -EFAULT, "a read before the begin, inside the hugepage", r);
  close(in);
  close(out);
  close(ring.fd);
}

/* Provided buffers in a ring of the kernel's own memory, which stays mapped when it is unregistered. */
static void kernel_buffers(void) {
  struct {
    uint64_t address;
    uint32_t entries;
    uint16_t group, flags;
    uint64_t resv[3];
  } arg = {0, 4, 3, 1 /* IOU_PBUF_RING_MMAP */, {0}};
  struct entry {
    uint64_t address;
    uint32_t length;
    uint16_t id, tail;
  } *entries;
  struct ring ring;
  int r = start(&ring), pipefd[2];
  if (r < 0 || pipe(pipefd) < 0) {
    say(0, "a ring for provided buffers", r);
    return;
  }
  r = reg(ring.fd, IORING_REGISTER_PBUF_RING, &arg, 1);
  if (r == -EINVAL) {
    printf("lacks provided buffers in memory of the kernel\n");
    return;
  }
  say(r == 0, "provided buffers in memory of the kernel", r);
  entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, 0x80000000LL | 3 << 16);
  say((void *)entries != MAP_FAILED, "their mapping", -errno);
  if ((void *)entries == MAP_FAILED) return;
  void *nobody = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, 0x80000000LL | 4 << 16);
  say(nobody == MAP_FAILED, "no mapping of another group", 0);
  static char memory[2][8];
  for (int i = 0; i < 2; i++) {
    entries[i].address = (uint64_t)(uintptr_t)memory[i];
    entries[i].length = 8;
    entries[i].id = (uint16_t)(40 + i);
  }
  __atomic_store_n(&entries[0].tail, 2, __ATOMIC_RELEASE);
  struct io_uring_sqe sqe = request(IORING_OP_READ, pipefd[0], NULL, 8);
  sqe.flags = IOSQE_BUFFER_SELECT;
  sqe.off = UINT64_MAX;
  sqe.buf_group = 3;
  for (int i = 0; i < 2; i++) {
    if (write(pipefd[1], i ? "second" : "first!", 6) != 6) return;
    unsigned flags = 0;
    r = once(&ring, &sqe, &flags);
    say(r == 6 && flags >> 16 == (unsigned)(40 + i) && memcmp(memory[i], i ? "second" : "first!", 6) == 0,
        "a read takes a buffer from there", r);
  }
  if (write(pipefd[1], "third!", 6) != 6) return;
  r = once(&ring, &sqe, NULL);
  say(r == -ENOBUFS, "none is left", r);
  arg.flags = 0; /* newer kernels take none here */
  r = reg(ring.fd, IORING_UNREGISTER_PBUF_RING, &arg, 1);
  say(r == 0, "an end with the mapping still there", r);
  memset(entries, 0, 64);
  entries[0].tail = 3;
  r = once(&ring, &sqe, NULL);
  say(r == -ENOBUFS, "what is written there afterwards counts for nothing", r);
  close(ring.fd);
  memset(entries, 0xff, 64);
  munmap(entries, 4096);
}

int main(void) {
  registered_only();
  registered_wait();
  hugepages();
  kernel_buffers();
  return 0;
}
