/** Names of constants (CONTRIBUTING.md): camelCase, unless they are the names of a device, a wire format or the kernel. */
import fs from 'node:fs';
import path from 'node:path';

const src = path.resolve(__dirname, '..', '..', 'src');

/** Folders whose names are settled. */
const settled = [
  ...['cli', 'commands', 'common', 'control', 'dma', 'groups', 'launch', 'nvme', 'vfio'],
  ...['vhost-user/check', 'vhost-user/frontend', 'vhost-user/tools', 'vhost-user/wire'],
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
