import fs from 'node:fs';
import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { readList } from '../../cli/streams/input.js';
import { usage, wrap } from '../../common/errors.js';
import {
  type Aperture,
  allowed,
  entryLimit,
  parseAvoid,
  parsePages,
  parseReservedRegions,
  readAperture,
  widthRange,
} from '../../dma/aperture.js';
import { requireFeasible } from '../../dma/forecast.js';
import { plan } from '../../dma/layout.js';
import { lockLimit } from '../../dma/lock-limit.js';
import { pinHint, pinProblem } from '../../dma/pinning.js';
import { parseSpecs } from '../../dma/spec.js';
import { specWords } from '../../groups/dma/specs.js';
import { planLines } from '../../groups/dma/views.js';
import { expand } from '../../vfio/devices/select.js';

async function readText(file: string): Promise<string> {
  if (file === '-') {
    const lines: string[] = [];
    for await (const line of readList(0, 10)) lines.push(line);
    return lines.join('\n');
  }
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (err) {
    throw wrap(`read ${file}`, err);
  }
}

export default class DmaPlan extends Command {
  static override readonly description =
    "Shows the address that `dma map` would choose for each mapping, the number of mappings that count against the kernel's " +
    'limit, and the locked memory that they need. It needs no root and changes nothing. Name a device of this host, or ' +
    'describe the IOMMU of another host by its reserved regions and its address width. The exit status is 3 if the mappings ' +
    'do not fit, or if you name a device and the host has too little free memory for them. It is 6 if they exceed ' +
    'RLIMIT_MEMLOCK.';
  static readonly examples: readonly Example[] = [
    ['vioctl dma plan 0000:01:00.0 ring=64M,below4g buf=1G', 'plan for a device of this host'],
    ['vioctl dma plan net:eth1 @maps.txt', 'plan many mappings, one on each line of a file'],
    [
      'ssh host cat /sys/kernel/iommu_groups/7/reserved_regions | vioctl dma plan --reserved - --aw 39 guest=1536G',
      'check whether a mapping fits on another host',
    ],
  ];
  static override readonly args = {
    'bdf|map': Args.string({
      required: true,
      multiple: true,
      description:
        'device (not with --reserved), then NAME=SIZE|FILE[,align=2M][,iova=0x…][,below4g][,temp][,huge=2M][,ro]…, or @FILE with one ' +
        'on each line',
    }),
  };
  static override readonly flags = {
    reserved: Flags.string({ helpValue: 'FILE', summary: "lines of an IOMMU group's reserved_regions (-: stdin), instead of a device" }),
    aw: Flags.integer({ helpValue: 'BITS', summary: "address width of the IOMMU [default: the device's own, 48 with --reserved]" }),
    pgsizes: Flags.string({ helpValue: 'LIST', default: '4K,2M,1G', summary: 'page sizes of the IOMMU' }),
    avoid: Flags.string({ helpValue: 'START-END', multiple: true, summary: 'addresses to leave out, both included' }),
  };

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(DmaPlan);
    const words = args['bdf|map'] as unknown as string[];
    const bdf = /^@|=/.test(words[0] ?? '') ? undefined : expand(this.sysroot, [words[0] ?? ''])[0]!;
    if ((bdf === undefined) === (flags.reserved === undefined))
      throw usage(
        bdf ? 'a device and --reserved exclude each other' : 'no device: give its PCI address, or --reserved FILE',
        bdf ? undefined : 'vioctl dma plan 0000:01:00.0 buf=64M',
      );
    const specs = parseSpecs(await specWords(words.slice(bdf === undefined ? 0 : 1)));
    if (specs.length === 0) throw usage('nothing to map', 'NAME=SIZE, such as buf=64M');
    const pages = parsePages(flags.pgsizes);
    const avoid = (flags.avoid ?? []).map(parseAvoid);
    let aperture: Aperture;
    if (bdf !== undefined) {
      aperture = readAperture(this.sysroot, bdf, pages, flags.aw);
    } else {
      const reserved = parseReservedRegions(await readText(flags.reserved!));
      aperture = { ranges: allowed([widthRange(flags.aw ?? 48)], reserved), reserved, pages, limit: entryLimit };
    }
    if (avoid.length > 0) aperture = { ...aperture, ranges: allowed(aperture.ranges, avoid), reserved: [...aperture.reserved, ...avoid] };
    const planned = plan(aperture, specs);
    if (bdf !== undefined) {
      const limit = lockLimit(this.sysroot.attr('/proc/self/status') ?? '');
      requireFeasible(this.sysroot, specs, BigInt(planned.memlock), aperture.pages[0]!, limit);
    } else {
      for (const spec of specs) {
        const problem = pinProblem(spec);
        if (problem !== undefined) this.warn(`${problem} (Linux 6.5 and later): ${pinHint(spec)}`);
      }
    }
    await this.out.document(planned, planLines);
    return undefined;
  }
}
