/*
 * vioctl uring register FILE... -- CMD: how CMD uses the ring and the registered files that it inherits.
 *
 *   #include "vioctl-ring.h"                             // C99 or C++, no library needed
 *   struct vioctl_ring ring;
 *   if (vioctl_ring_attach(&ring) < 0) ...                // errno: ENOENT without vioctl around it
 *   ssize_t n = vioctl_ring_pread(&ring, 0, buffer, sizeof buffer, 0);   // slot 0; -1 and errno as pread(2)
 *   vioctl_ring_detach(&ring);
 *
 * The environment holds VIOCTL_RING_FD (the inherited descriptor), VIOCTL_RING_PARAMS (struct io_uring_params as
 * io_uring_setup(2) returned it, in hexadecimal) and VIOCTL_RING_FILES (slots of the file table). The ring has no
 * SINGLE_ISSUER, so any process may submit; only one may do so at a time. For more than one request at once take
 * entries with vioctl_ring_sqe(), hand them over with vioctl_ring_enter() and reap with vioctl_ring_cqe().
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef VIOCTL_RING_H
#define VIOCTL_RING_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* syscall(2), MAP_POPULATE: under -std=c99 this header comes before those of the system */
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vioctl_ring {
  int fd;         /* the ring; owned by the caller from attach to detach */
  uint32_t files; /* slots of the file table */
  struct io_uring_params params;
  unsigned char *rings, *cq_ring; /* mappings; the same with IORING_FEAT_SINGLE_MMAP */
  size_t rings_size, cq_size, sqes_size;
  struct io_uring_sqe* sqes;
  uint32_t tail;   /* next free submission entry, not yet published */
  uint32_t flying; /* requests that the kernel has taken and whose last completion was not taken from it */
};

static inline uint32_t* vioctl_ring_word_(unsigned char* base, uint32_t offset) {
  return (uint32_t*)(void*)(base + offset);
}

static inline int vioctl_ring_hex_(const char* text, unsigned char* to, size_t size) {
  if (strlen(text) != size * 2) return -1;
  for (size_t i = 0; i < size; i++) {
    unsigned value = 0;
    for (size_t k = 0; k < 2; k++) {
      const char c = text[i * 2 + k];
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
      if (digit < 0) return -1;
      value = value * 16 + (unsigned)digit;
    }
    to[i] = (unsigned char)value;
  }
  return 0;
}

/* Unmaps the ring and closes its descriptor. The files stay registered as long as vioctl runs. */
static inline void vioctl_ring_detach(struct vioctl_ring* ring) {
  if (ring->sqes) munmap(ring->sqes, ring->sqes_size);
  if (ring->cq_ring && ring->cq_ring != ring->rings) munmap(ring->cq_ring, ring->cq_size);
  if (ring->rings) munmap(ring->rings, ring->rings_size);
  if (ring->fd >= 0) close(ring->fd);
  memset(ring, 0, sizeof *ring);
  ring->fd = -1;
}

/* Maps the inherited ring. 0, or -1 and errno: ENOENT (no ring was handed over), EINVAL (damaged environment), mmap's.
 */
static inline int vioctl_ring_attach(struct vioctl_ring* ring) {
  const char *fd = getenv("VIOCTL_RING_FD"), *params = getenv("VIOCTL_RING_PARAMS"),
             *files = getenv("VIOCTL_RING_FILES");
  memset(ring, 0, sizeof *ring);
  ring->fd = -1;
  if (!fd || !params || !files) {
    errno = ENOENT;
    return -1;
  }
  if (vioctl_ring_hex_(params, (unsigned char*)&ring->params, sizeof ring->params) < 0) {
    errno = EINVAL;
    return -1;
  }
  ring->fd = atoi(fd);
  ring->files = (uint32_t)strtoul(files, NULL, 10);
  if (fcntl(ring->fd, F_SETFD, FD_CLOEXEC) < 0) {
    ring->fd = -1;
    return -1;
  }
  const struct io_uring_params* p = &ring->params;
  ring->rings_size = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
  ring->cq_size = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
  ring->sqes_size = p->sq_entries * sizeof(struct io_uring_sqe);
  const int single = (p->features & IORING_FEAT_SINGLE_MMAP) != 0;
  if (single && ring->cq_size > ring->rings_size) ring->rings_size = ring->cq_size;
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  void* rings = mmap(NULL, ring->rings_size, protection, flags, ring->fd, IORING_OFF_SQ_RING);
  if (rings != MAP_FAILED) ring->rings = (unsigned char*)rings;
  void* cq = single ? rings : mmap(NULL, ring->cq_size, protection, flags, ring->fd, IORING_OFF_CQ_RING);
  if (cq != MAP_FAILED) ring->cq_ring = (unsigned char*)cq;
  void* sqes = mmap(NULL, ring->sqes_size, protection, flags, ring->fd, IORING_OFF_SQES);
  if (sqes != MAP_FAILED) ring->sqes = (struct io_uring_sqe*)sqes;
  if (!ring->rings || !ring->cq_ring || !ring->sqes) {
    const int error = errno;
    vioctl_ring_detach(ring);
    errno = error;
    return -1;
  }
  ring->tail = *vioctl_ring_word_(ring->rings, p->sq_off.tail);
  return 0;
}

/* The next submission entry, zeroed, or NULL when the queue is full. Fill it; vioctl_ring_enter() hands it over. */
static inline struct io_uring_sqe* vioctl_ring_sqe(struct vioctl_ring* ring) {
  const uint32_t head = __atomic_load_n(vioctl_ring_word_(ring->rings, ring->params.sq_off.head), __ATOMIC_ACQUIRE);
  if (ring->tail - head >= ring->params.sq_entries) return NULL;
  const uint32_t index = ring->tail & (ring->params.sq_entries - 1);
  vioctl_ring_word_(ring->rings, ring->params.sq_off.array)[index] = index;
  ring->tail++;
  memset(&ring->sqes[index], 0, sizeof ring->sqes[index]);
  return &ring->sqes[index];
}

/* Hands over what was filled and waits for `want` completions. Entries taken, or -1 and errno. */
static inline int vioctl_ring_enter(struct vioctl_ring* ring, uint32_t want) {
  const uint32_t head = __atomic_load_n(vioctl_ring_word_(ring->rings, ring->params.sq_off.head), __ATOMIC_ACQUIRE);
  __atomic_store_n(vioctl_ring_word_(ring->rings, ring->params.sq_off.tail), ring->tail, __ATOMIC_RELEASE);
  const int taken = (int)syscall(__NR_io_uring_enter, ring->fd, ring->tail - head, want,
                                 want ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
  if (taken > 0) ring->flying += (uint32_t)taken;
  return taken;
}

static inline void vioctl_ring_ended_(struct vioctl_ring* ring, const struct io_uring_cqe* cqe) {
  if (!(cqe->flags & IORING_CQE_F_MORE)) ring->flying--;
}

/* Takes one completion. 1, or 0 when there is none. */
static inline int vioctl_ring_cqe(struct vioctl_ring* ring, struct io_uring_cqe* cqe) {
  uint32_t* head = vioctl_ring_word_(ring->cq_ring, ring->params.cq_off.head);
  if (*head == __atomic_load_n(vioctl_ring_word_(ring->cq_ring, ring->params.cq_off.tail), __ATOMIC_ACQUIRE)) return 0;
  const struct io_uring_cqe* cqes = (const struct io_uring_cqe*)(const void*)(ring->cq_ring + ring->params.cq_off.cqes);
  *cqe = cqes[*head & (ring->params.cq_entries - 1)];
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  vioctl_ring_ended_(ring, cqe);
  return 1;
}

/* The user_data of the requests of vioctl_ring_pread() and vioctl_ring_pwrite(): use any other for your own. */
#define VIOCTL_RING_OWN UINT64_C(0xffffffffffffff52)

/* Takes the completion of our own request from among others, which stay in their order. 1, or 0 if it is not there. */
static inline int vioctl_ring_own_cqe_(struct vioctl_ring* ring, int32_t* result) {
  uint32_t* head = vioctl_ring_word_(ring->cq_ring, ring->params.cq_off.head);
  const uint32_t tail = __atomic_load_n(vioctl_ring_word_(ring->cq_ring, ring->params.cq_off.tail), __ATOMIC_ACQUIRE);
  const uint32_t mask = ring->params.cq_entries - 1;
  struct io_uring_cqe* cqes = (struct io_uring_cqe*)(void*)(ring->cq_ring + ring->params.cq_off.cqes);
  for (uint32_t at = *head; at != tail; at++) {
    if (cqes[at & mask].user_data != VIOCTL_RING_OWN) continue;
    *result = cqes[at & mask].res;
    vioctl_ring_ended_(ring, &cqes[at & mask]);
    for (; at != *head; at--) cqes[at & mask] = cqes[(at - 1) & mask]; /* the kernel reads none of them */
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return 1;
  }
  return 0;
}

/* Completions that are there. */
static inline uint32_t vioctl_ring_ready_(struct vioctl_ring* ring) {
  return __atomic_load_n(vioctl_ring_word_(ring->cq_ring, ring->params.cq_off.tail), __ATOMIC_ACQUIRE) -
         *vioctl_ring_word_(ring->cq_ring, ring->params.cq_off.head);
}

/* One request on a registered file, waited for; completions of other requests stay for vioctl_ring_cqe(). Its result, or
 * -1 and errno: EBUSY if the submission queue is full, or other requests could fill the queue of completions: reap
 * them first. Multishot requests may fill it at any time: keep them on a ring of their own. */
static inline ssize_t vioctl_ring_rw_(struct vioctl_ring* ring, uint8_t opcode, uint32_t slot, void* buffer,
                                      uint32_t size, uint64_t offset) {
  int32_t result = 0;
  const uint32_t taken = __atomic_load_n(vioctl_ring_word_(ring->rings, ring->params.sq_off.head), __ATOMIC_ACQUIRE);
  /* Ours and all that may complete meanwhile must fit, or ours would wait behind completions that nobody takes. */
  const int fits = ring->flying + (ring->tail - taken) < ring->params.cq_entries;
  struct io_uring_sqe* sqe = fits ? vioctl_ring_sqe(ring) : NULL;
  if (!sqe) {
    errno = EBUSY;
    return -1;
  }
  sqe->opcode = opcode;
  sqe->flags = IOSQE_FIXED_FILE;
  sqe->fd = (int32_t)slot;
  sqe->addr = (uint64_t)(uintptr_t)buffer;
  sqe->len = size;
  sqe->off = offset;
  sqe->user_data = VIOCTL_RING_OWN;
  while (!vioctl_ring_own_cqe_(ring, &result)) {
    if (vioctl_ring_enter(ring, vioctl_ring_ready_(ring) + 1) >= 0 || errno == EINTR || errno == EAGAIN) continue;
    const uint32_t head = __atomic_load_n(vioctl_ring_word_(ring->rings, ring->params.sq_off.head), __ATOMIC_ACQUIRE);
    if (head == ring->tail) continue; /* the kernel has it, so its memory must wait for it */
    ring->tail--;                     /* it was not taken: ours is the last */
    __atomic_store_n(vioctl_ring_word_(ring->rings, ring->params.sq_off.tail), ring->tail, __ATOMIC_RELEASE);
    return -1;
  }
  if (result < 0) {
    errno = -result;
    return -1;
  }
  return result;
}

/* pread(2) and pwrite(2) on a registered file. */
static inline ssize_t vioctl_ring_pread(struct vioctl_ring* ring, uint32_t slot, void* buffer, uint32_t size,
                                        uint64_t offset) {
  return vioctl_ring_rw_(ring, IORING_OP_READ, slot, buffer, size, offset);
}
static inline ssize_t vioctl_ring_pwrite(struct vioctl_ring* ring, uint32_t slot, const void* buffer, uint32_t size,
                                         uint64_t offset) {
  return vioctl_ring_rw_(ring, IORING_OP_WRITE, slot, (void*)(uintptr_t)buffer, size, offset);
}

#ifdef __cplusplus
}
#endif
#endif
