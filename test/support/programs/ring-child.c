/* Child of `vioctl uring register`: copies slot 0 to slot 1 through the inherited ring, then says what it did. */
#include <stdio.h>

#include "../../../include/vioctl-ring.h"

int main(int argc, char **argv) {
  struct vioctl_ring ring;
  if (vioctl_ring_attach(&ring) < 0) {
    perror("attach");
    return 3;
  }
  char buffer[4096];
  uint64_t offset = 0;
  ssize_t size;
  while ((size = vioctl_ring_pread(&ring, 0, buffer, sizeof buffer, offset)) > 0) {
    if (vioctl_ring_pwrite(&ring, 1, buffer, (uint32_t)size, offset) != size) {
      perror("pwrite");
      return 4;
    }
    offset += (uint64_t)size;
  }
  if (size < 0) {
    perror("pread");
    return 5;
  }
  /* A hole is EBADF, and many requests at once work as well. */
  const int hole = vioctl_ring_pread(&ring, 2, buffer, 1, 0) < 0 ? errno : 0;
  uint32_t queued = 0, reaped = 0;
  struct io_uring_sqe *sqe;
  while ((sqe = vioctl_ring_sqe(&ring)) != NULL) {
    sqe->opcode = IORING_OP_NOP;
    sqe->user_data = queued++;
  }
  if (vioctl_ring_enter(&ring, queued) != (int)queued) return 6;
  struct io_uring_cqe cqe;
  while (vioctl_ring_cqe(&ring, &cqe)) reaped++;
  printf("copied %llu, files %u, hole %d, nops %u of %u, fd %s\n", (unsigned long long)offset, ring.files, hole, reaped, queued,
         argc > 1 ? argv[1] : "");
  vioctl_ring_detach(&ring);
  return 7;
}
