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

int main(void) {
  registered_only();
  registered_wait();
  return 0;
}
