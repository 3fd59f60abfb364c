/**
 * The guides of docs/ on a real kernel, from top to bottom, in one guest: a machine as the guides describe it, with an NVMe disk at
 * 01:00.0 and a network card with SR-IOV at 03:00.0. `GUIDES=all` also runs those that need no kernel of their own, which
 * test/cli/examples runs without a guest; `GUIDES=NAME,NAME` runs some. What is left is marked in the guide: a running virtual
 * machine, crash, drgn, KVM.
 */
import fs from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { asShown, type Example, exampleScript, examplesOf } from '../support/examples.js';
import { boot, devices } from './lab.js';
import { igb } from './vfio-guest.js';

const folder = path.resolve(__dirname, '../../docs/guides');
const onKernel = ['group-not-viable', 'vf-for-a-vm', 'declare-a-host', 'two-paths'];
const wanted = process.env.GUIDES;
const guides = wanted === 'all' ? [...onKernel, ...others()] : (wanted?.split(',') ?? onKernel);
function others(): string[] {
  return fs
    .readdirSync(folder)
    .map((file) => path.basename(file, '.md'))
    .filter((name) => !onKernel.includes(name));
}

/** Needs of examples that this guest meets. */
const met = [
  'a host with an IOMMU.',
  'a card with SR-IOV, and root.',
  'the devices of the file, and root.',
  'a kernel with nvme-tcp, and root.',
  'gdb.',
];
/** Lines whose numbers are those of another machine. */
const elsewhere = new Set(['group-not-viable', 'measure-a-target']);
/** Examples whose exit status is part of what they show. */
const mayFail = /vfio doctor/;

const texts = new Map(guides.map((name) => [name, fs.readFileSync(path.join(folder, `${name}.md`), 'utf8')]));
const examplesIn = (name: string): Example[] =>
  examplesOf(texts.get(name)!).filter(({ needs }) => needs === undefined || met.includes(needs));

/** The first block of YAML in a guide, which the reader writes to a file. */
const yaml = (text: string): string => /```yaml\n([\s\S]*?)```/.exec(text)?.[1] ?? '';

const prepare = `
echo 'me:x:1000:1000::/home/me:/bin/bash' >>/etc/passwd; mkdir -p /home/me
modprobe vfio-pci; modprobe igb; modprobe igbvf; modprobe nvme; modprobe nvme-tcp
for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && [ -e /dev/nvme0n1 ] && break; sleep 0.1; done
`;
const runGuide = (name: string): string => `
rm -rf /logs; mkdir /logs; timeout 400 bash /guides/${name}.sh >&2
for f in $(ls /logs | grep -v rc | sort -n); do echo "@@ ${name} $f $(cat /logs/$f.rc 2>/dev/null)"; cat /logs/$f; printf '\\n@=\\n'; done
`;

const outcomes = new Map<string, { status: number; output: string }>();
beforeAll(async () => {
  const { stdout, stderr } = await boot({
    kernel: '6.12',
    cmd: `${prepare}${guides.map(runGuide).join('')}`,
    devices: [devices.iommu(), devices.nvme(1, { extra: 'serial=NV1' }), devices.rootPort('spare'), igb],
    env: { LC_ALL: 'C.UTF-8', VIOCTL_ADDON: path.resolve(__dirname, '../../build/native/release/vioctl.node') },
    files: {
      ...Object.fromEntries(
        guides.map((name) => [`/guides/${name}.sh`, exampleScript(examplesIn(name), { home: '/home/me', logs: '/logs' })]),
      ),
      '/home/me/devices.yaml': yaml(fs.readFileSync(path.join(folder, 'declare-a-host.md'), 'utf8')),
      '/home/me/guest.mig': gunzipSync(fs.readFileSync(path.resolve(__dirname, '../fixtures/migration/vfio-mtty.mig.gz'))),
    },
    timeout: 900,
  });
  for (const [, name, index, status, output] of stdout.matchAll(/^@@ (\S+) (\d+) (\d*)\n([\s\S]*?)\n@=$/gm))
    outcomes.set(`${name} ${index}`, { status: status === '' ? 255 : Number(status), output: output! });
  if (outcomes.size === 0) throw new Error(`no guide ran: ${stdout.slice(-2000)}${stderr.slice(-2000)}`);
}, 1_000_000);

test.each(guides)('%s', (name) => {
  const wrong = examplesIn(name).flatMap((example, i) => {
    const { status, output } = outcomes.get(`${name} ${i}`) ?? { status: 255, output: 'not run' };
    const needed = example.needs !== undefined; // what such a command prints depends on the machine, unless it is shown
    const fits =
      (needed && example.expected.length === 0) || asShown({ ...example, sample: example.sample || elsewhere.has(name) }, output);
    const done = status === 0 || (!needed && example.expected.length > 0) || mayFail.test(example.command);
    return fits && done ? [] : [`${name}.md:${example.line}: $ ${example.command}\n${output}(status ${status})`];
  });
  expect(wrong).toEqual([]);
});
