// One command in a guest: npx tsx test/vm/run.ts --kernel 6.12 --iommu --device edu -- COMMAND...
import { parseArgs } from 'node:util';
import { bridge, type Device, edu, iommu, network, nvme, pciTestdev, virtioIommu } from './devices.js';
import { boot, KERNELS, type KernelName } from './lab.js';

const HELP = `usage: run.ts [--kernel 6.1|6.12|7] [--qemu 10|7.2|11] [--iommu] [--iommufd] [--device NAME[=COUNT]]... [--qemu-arg ARG]... [--memory MIB]
              [--smp N] [--append TEXT] [--share DIR] [--timeout SECONDS] [--console] [--fresh] -- COMMAND [ARGUMENT...]
devices: edu, nvme=COUNT, bridge, pci-testdev, net, virtio-iommu
Runs the command as root in this checkout inside a guest; prints its output and ends with its status.
One argument is a shell script; several are a command and its arguments.`;

const PRESETS: Record<string, (count: number) => Device> = {
  edu,
  nvme: (count) => nvme(count),
  bridge,
  'pci-testdev': pciTestdev,
  net: () => network(),
  'virtio-iommu': virtioIommu,
};

function usage(problem: string): never {
  process.stderr.write(`run.ts: ${problem}\n${HELP}\n`);
  process.exit(2);
}

function options() {
  return parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: 'string', default: '6.12' },
      qemu: { type: 'string', default: '10' },
      iommufd: { type: 'boolean', default: false },
      iommu: { type: 'boolean', default: false },
      device: { type: 'string', multiple: true, default: [] },
      'qemu-arg': { type: 'string', multiple: true, default: [] },
      memory: { type: 'string', default: '1024' },
      smp: { type: 'string', default: '1' },
      append: { type: 'string', default: '' },
      share: { type: 'string' },
      timeout: { type: 'string', default: '300' },
      fresh: { type: 'boolean', default: false },
      console: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

function parsed(): ReturnType<typeof options> {
  try {
    return options();
  } catch (e) {
    return usage(e instanceof Error ? e.message : String(e));
  }
}

// a reader that has seen enough
process.stdout.on('error', (e: NodeJS.ErrnoException) => process.exit(e.code === 'EPIPE' ? 141 : 1));
const { values, positionals } = parsed();
if (values.help) {
  process.stdout.write(`${HELP}\n`);
  process.exit(0);
}
const kernel = KERNELS.find((k) => k === values.kernel) as KernelName | undefined;
if (!kernel) usage(`no kernel ${values.kernel}`);
const qemu = (['10', '7.2', '11'] as const).find((q) => q === values.qemu);
if (!qemu) usage(`no QEMU ${values.qemu}`);
if (positionals.length === 0) usage('no command');
for (const n of ['memory', 'smp', 'timeout'] as const) if (!/^[1-9]\d*$/.test(values[n])) usage(`--${n} ${values[n]} is not a number`);
const quote = (s: string) => `'${s.replaceAll("'", "'\\''")}'`;
const devices = values.device.map((d) => {
  const [name, count] = d.split('=');
  const preset = PRESETS[name ?? ''];
  if (!preset || !/^[1-9]\d?$/.test(count ?? '1')) usage(`no device ${d}`);
  return preset(Number(count ?? 1));
});
if (values.iommu) devices.unshift(iommu());

try {
  const r = await boot({
    kernel,
    qemu,
    iommufd: values.iommufd,
    fresh: values.fresh,
    cmd: positionals.length === 1 ? (positionals[0] ?? '') : positionals.map(quote).join(' '),
    devices,
    args: values['qemu-arg'],
    memory: Number(values.memory),
    smp: Number(values.smp),
    append: values.append,
    timeout: Number(values.timeout),
    ...(values.share ? { share: values.share } : {}),
  });
  process.stdout.write(r.stdoutBytes);
  process.stderr.write(r.stderr);
  if (values.console) process.stderr.write(r.console);
  process.stderr.write(`status ${r.status}, ${r.seconds.toFixed(1)} s\n`);
  process.exitCode = r.status;
} catch (e) {
  process.stderr.write(`${e instanceof Error ? e.message : String(e)}\n`);
  process.exitCode = 125;
}
