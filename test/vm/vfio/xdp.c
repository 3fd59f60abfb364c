// Attaches an XDP program that passes everything to an interface, opens an AF_XDP socket on its queue 0, says so, and sleeps.
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static long bpf(int command, union bpf_attr* attr) { return syscall(SYS_bpf, command, attr, sizeof *attr); }

static int fail(const char* what) {
  perror(what);
  return 1;
}

int main(int argc, char** argv) {
  const unsigned index = argc > 1 ? if_nametoindex(argv[1]) : 0;
  if (!index) return fail("interface");
  const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &all);
  const struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS}, {.code = BPF_JMP | BPF_EXIT}};
  union bpf_attr load = {.prog_type = BPF_PROG_TYPE_XDP, .insn_cnt = 2};
  load.insns = (uintptr_t)code;
  load.license = (uintptr_t) "GPL";
  const long program = bpf(BPF_PROG_LOAD, &load);
  if (program < 0) return fail("BPF_PROG_LOAD");
  union bpf_attr link = {0};
  link.link_create.prog_fd = program;
  link.link_create.target_ifindex = index;
  link.link_create.attach_type = BPF_XDP;
  link.link_create.flags = XDP_FLAGS_SKB_MODE;
  if (bpf(BPF_LINK_CREATE, &link) < 0) return fail("BPF_LINK_CREATE");

  const int fd = socket(AF_XDP, SOCK_RAW, 0);
  if (fd < 0) return fail("AF_XDP");
  enum { kFrames = 64, kFrame = 4096 };
  void* memory = mmap(NULL, kFrames * kFrame, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  const struct xdp_umem_reg umem = {.addr = (uintptr_t)memory, .len = kFrames * kFrame, .chunk_size = kFrame};
  const int entries = kFrames;
  if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem) || setsockopt(fd, SOL_XDP, XDP_UMEM_FILL_RING, &entries, sizeof entries) ||
      setsockopt(fd, SOL_XDP, XDP_UMEM_COMPLETION_RING, &entries, sizeof entries) ||
      setsockopt(fd, SOL_XDP, XDP_RX_RING, &entries, sizeof entries))
    return fail("setsockopt");
  const struct sockaddr_xdp address = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY, .sxdp_ifindex = index};
  if (bind(fd, (const struct sockaddr*)&address, sizeof address)) return fail("bind");
  puts("ready");
  fflush(stdout);
  return sleep(600);
}
