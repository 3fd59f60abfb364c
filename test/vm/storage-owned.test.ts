// Nobody shares a served disk: QEMU's tools, mkfs, mount, swap, device mapper and the kernel's own target are kept out of it, and
// the servers keep out of what these use.
import { storageFacts } from './storage/lab.js';

test('served disks refuse others, and disks in use are refused', async () => {
  const facts = await storageFacts('owned');
  const refused = (text: RegExp | string): [number, unknown] => [3, expect.stringMatching(text)];
  const both = (what: string, text: RegExp): Record<string, unknown> => ({
    [`nvmf refuses ${what}`]: refused(text),
    [`blk refuses ${what}`]: refused(text),
  });
  const failed = (text: RegExp): object => ({ status: expect.any(Number), text: expect.stringMatching(text) });
  expect(facts).toMatchObject({
    'qemu-io on a served image': { status: 1, text: expect.stringMatching(/lock/) },
    'qemu-io on a guest disk': { status: 1, text: expect.stringMatching(/lock/) },
    'qemu-io afterwards': 0,
    ...Object.fromEntries(
      ['/run/image', '/run/hard', '/run/sym', 'a guest disk'].flatMap((name) =>
        Object.entries(both(name, /already in use by .+ \(pid \d+\)/)),
      ),
    ),
    'an image of qemu-io': [
      expect.stringMatching(/^already in use by qemu-io \(pid \d+\)/),
      'status 3',
      expect.stringMatching(/^already in use by qemu-io \(pid \d+\)/),
      'status 3',
    ],
    ...both('a mounted device', /already in use: mounted on \/mnt/),
    ...both('the file below a mounted device', /already in use by loop device/),
    ...both('active swap', /already in use: active swap/),
    ...both('a device below dm', /already in use by /),
    ...both('a device below a mounted dm', /mounted on \/mnt/),
    ...both('a mounted dm', /mounted on \/mnt/),
    ...both('a physical volume', /already in use by .*LVM/),
    array: [expect.stringMatching(/^(active|clean|active-idle)$/), expect.stringMatching(/^[1-9]\d*$/)],
    ...both('a member of an array', /already in use by /),
    ...both('a namespace of nvmet', /already in use by .*(NVMe|nvmet)/),
    ...both('the file below a namespace of nvmet', /already in use by /),
    ...both('the disk of a mounted partition', /mounted on \/mnt/),
    ...both('a mounted partition', /mounted on \/mnt/),
    'mount afterwards': { status: 0 },
  });
  for (const server of ['nvmf', 'blk'])
    for (const [name, text] of Object.entries({
      'mkfs.ext4': /in use by the system/,
      'mkfs.xfs': /busy|in use/i,
      mount: /busy|already mounted/,
      mkswap: /busy/,
      dm: /busy|failed/i,
      wipefs: /busy/,
    })) {
      const fact = facts[`${server} against ${name}`] as { status: number; text: string };
      expect({ server, name, ...fact }).toMatchObject({ server, name, ...failed(text) });
      expect({ server, name, failed: fact.status > 0 }).toEqual({ server, name, failed: true });
    }
});
