/* ring-others: pread of slot 0 while reads of slot 1 complete; their completions must stay, in their order. Exit 0 if so. */
#include <stdio.h>

#include "../../../include/vioctl-ring.h"

int main(void) {
  struct vioctl_ring ring;
  static char own[64], others[8][4096];
  if (vioctl_ring_attach(&ring) < 0) return perror("attach"), 3;
  int wrong = 0;
  for (int round = 0; round < 20; round++) {
    const unsigned count = (unsigned)round % 8 + 1;
    for (unsigned i = 0; i < count; i++) {
      struct io_uring_sqe *sqe = vioctl_ring_sqe(&ring);
      if (!sqe) return 4;
      sqe->opcode = IORING_OP_READ;
      sqe->flags = IOSQE_FIXED_FILE;
      sqe->fd = 1;
      sqe->addr = (uintptr_t)others[i];
      sqe->len = 100 + i;
      sqe->user_data = i; /* 0 is one of them */
    }
    if (round % 2) vioctl_ring_enter(&ring, round % 4 == 1 ? count : 0);
    memset(own, 'z', sizeof own);
    const ssize_t n = vioctl_ring_pread(&ring, 0, own, 10, 3);
    if (n != 10 || memcmp(own, "3456789abczz", 12)) wrong++, printf("round %d: pread gave %zd\n", round, n);
    if (vioctl_ring_pread(&ring, 7, own, 1, 0) != -1 || errno != EBADF) wrong++, printf("round %d: slot 7\n", round);
    unsigned seen = 0, sum = 0;
    struct io_uring_cqe cqe;
    while (seen < count) {
      if (!vioctl_ring_cqe(&ring, &cqe)) {
        vioctl_ring_enter(&ring, 1);
        continue;
      }
      if (cqe.user_data >= count || cqe.res != 100 + (int)cqe.user_data) wrong++, printf("round %d: %llu gave %d\n", round, (unsigned long long)cqe.user_data, cqe.res);
      sum += (unsigned)cqe.user_data;
      seen++;
    }
    if (sum != count * (count - 1) / 2 || vioctl_ring_cqe(&ring, &cqe) || ring.flying != 0) wrong++, printf("round %d: sum %u\n", round, sum);
  }
  /* Completions that nobody takes: EBUSY, never another's result. */
  int full = 0;
  for (unsigned i = 0; i < 4 * ring.params.cq_entries && !full; i++) {
    struct io_uring_sqe *sqe = vioctl_ring_sqe(&ring);
    if (sqe) sqe->opcode = IORING_OP_NOP, sqe->user_data = 5;
    vioctl_ring_enter(&ring, 0);
    full = vioctl_ring_pread(&ring, 0, own, 1, 0) < 0 && errno == EBUSY;
  }
  if (!full) wrong++, printf("never full\n");
  vioctl_ring_detach(&ring);
  return wrong != 0;
}
