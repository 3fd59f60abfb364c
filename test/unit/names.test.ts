/** Names of constants (CONTRIBUTING.md): camelCase, unless they are the names of a device, a wire format or the kernel. */
import fs from 'node:fs';
import path from 'node:path';

const src = path.resolve(__dirname, '..', '..', 'src');

/** Folders whose names are settled. */
const settled = [
  ...['cli', 'commands', 'common', 'control', 'dma', 'groups', 'launch', 'migration', 'nvme', 'storage', 'uring', 'vfio', 'vhost-user'],
];

/** Upper-case names that are not ours, by their file. */
const foreign: Record<string, string> = {
  'vfio/selftest/edu.ts': 'ID LIVENESS RAISE ACKNOWLEDGE DMA_SOURCE DMA_DESTINATION DMA_COUNT DMA_COMMAND START TO_MEMORY',
  'vfio/selftest/nvme.ts': 'CAP VS CC CSTS AQA ASQ ACQ SQE CQE',
  'vfio/checks/chipset.ts': 'VIRTIO VIRTIO_IOMMU',
  'vfio/checks/filesystems.ts': 'VIRTIO_FS PCI_VIRTIO_FS',
  'vfio/census/interfaces.ts': 'RTF_REJECT',
  'vfio/inventory/inventory.ts': 'IORESOURCE_IO IORESOURCE_MEM IORESOURCE_PREFETCH IORESOURCE_MEM_64',
  'vfio/devices/capabilities.ts': 'PCI_STATUS_CAP_LIST',
  'vfio/session/open.ts': 'BIND_IOMMUFD',
  'migration/devices/evidence.ts': 'CMOS PAM',
  'migration/devices/virtio-class.ts': 'CTRL_GUEST_OFFLOADS NET_MQ RSS RING_PACKED',
  'migration/export/arm.ts':
    'NT_ARM_VFP NT_ARM_SVE FPSR_BITS FPCR_BITS SCTLR_EL1 SCTLR SCTLR_EE HCR_EL2 SCR_EL3 SCR_NS SCR_EEL2 SVCR MIDR ID_AA64ZFR0 ' +
    'ID_AA64SMFR0 ID_AA64PFR0 ID_AA64ISAR0 NRW USR FIQ IRQ SVC ABT HYP UND SYS',
  'migration/export/cpus.ts':
    'NT_PRSTATUS NT_PPC_VMX NT_PPC_SPE NT_PPC_VSX NT_S390_TIMER NT_S390_TODCMP NT_S390_TODPREG NT_S390_CTRS NT_S390_PREFIX ' +
    'NT_S390_VXRS_LOW NT_S390_VXRS_HIGH NT_S390_GS_CB LPCR LPCR_ILE XER LR CTR SPEFSCR UBE CONFIG_AT CONFIG_BE',
  'migration/export/elf.ts': 'EHDR PHDR PT_LOAD PT_NOTE',
  'migration/export/registers.ts': 'NT_PRFPREG',
  'migration/export/vmcoreinfo.ts': 'START_KERNEL_MAP',
  'uring/bulk/name.ts': 'PATH_MAX',
  'uring/bulk/engine/engine.ts': 'TMPFS_MAGIC',
  'uring/bulk/engine/reader.ts': 'AT_FDCWD O_NOCTTY S_IFMT S_IFREG',
  'uring/host/probe.ts': 'EFAULT',
  'uring/operations/iterators.ts': 'ENOBUFS',
  'uring/operations/operations.ts': 'ECANCELED EINTR ETIME',
  'uring/request/address.ts': 'AF_UNIX AF_INET AF_INET6',
  'uring/request/bounds.ts': 'EPOLL_EVENT',
  'uring/request/prep.ts': 'AT_FDCWD AT_EMPTY_PATH AT_REMOVEDIR AT_SYMLINK_NOFOLLOW STATX_BASIC SOCK_CLOEXEC MSG_NOSIGNAL',
  'uring/ring/queue.ts': 'ECANCELED',
  'uring/ring/ring.ts': 'AT_FDCWD',
  'vhost-user/backend/rings.ts': 'VRING_F_LOG',
  'vhost-user/shmem/device.ts': 'PMEM_FLUSH PMEM_OK PMEM_EIO',
  'vhost-user/tools/proxy.ts': 'SET_BACKEND_REQ_FD',
  'vhost-user/tools/probe.ts': 'NET_CTRL_VQ',
};

const constantsOf = (text: string): string[] =>
  [...text.matchAll(/^\s*(?:export )?const ([A-Z][A-Z0-9_]*)\b(?= =|:)/gm)].map(([, name]) => name!);

test('upper-case constants are seen', () => {
  expect(constantsOf("const A = 1;\nexport const B_C: number = 2;\n  const D1 = 3;\nconst Op = {};\nconst e = 'const F = 1';")).toEqual([
    'A',
    'B_C',
    'D1',
  ]);
});

test('constants are camelCase, unless the name is that of a device, a wire format or the kernel', () => {
  const files = settled.flatMap((folder) =>
    (fs.readdirSync(path.join(src, folder), { recursive: true }) as string[])
      .filter((f) => f.endsWith('.ts'))
      .map((f) => path.join(folder, f)),
  );
  expect(files.length).toBeGreaterThan(150);
  const found = files.flatMap((file) =>
    constantsOf(fs.readFileSync(path.join(src, file), 'utf8'))
      .filter((name) => !(foreign[file] ?? '').split(' ').includes(name))
      .map((name) => `${file}: ${name}`),
  );
  expect(found).toEqual([]);
});
