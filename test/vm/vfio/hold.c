// Holds a VFIO device for tests: hold GROUP BDF fd|map|req. Prints "ready" and waits to be killed.
//   fd   keeps all descriptors open
//   map  maps BAR 0 and closes every descriptor
//   req  arms the request interrupt and ends when the kernel asks for the device
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int must(int result, const char* what) {
  if (result < 0) {
    perror(what);
    exit(1);
  }
  return result;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  char node[64];
  snprintf(node, sizeof node, "/dev/vfio/%s", argv[1]);
  int container = must(open("/dev/vfio/vfio", O_RDWR), "container");
  int group = must(open(node, O_RDWR), "group");
  must(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container), "SET_CONTAINER");
  must(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "SET_IOMMU");
  int device = must(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[2]), "GET_DEVICE_FD");
  int event = -1;
  if (!strcmp(argv[3], "map")) {
    struct vfio_region_info region = {.argsz = sizeof region, .index = 0};
    must(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region), "GET_REGION_INFO");
    if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, device, (off_t)region.offset) == MAP_FAILED) must(-1, "mmap");
    close(device);
    close(group);
    close(container);
  } else if (!strcmp(argv[3], "req")) {
    event = must(eventfd(0, 0), "eventfd");
    struct {
      struct vfio_irq_set set;
      int32_t fd;
    } irq = {{.argsz = sizeof irq,
              .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
              .index = VFIO_PCI_REQ_IRQ_INDEX,
              .start = 0,
              .count = 1},
             event};
    must(ioctl(device, VFIO_DEVICE_SET_IRQS, &irq), "SET_IRQS");
  }
  puts("ready");
  fflush(stdout);
  uint64_t count;
  if (event >= 0) return read(event, &count, sizeof count) == sizeof count ? 0 : 1;
  for (;;) pause();
}
