/** Pages that a stream does not give, and why. */
import { hex64 } from '../../common/units.js';
import type { Evidence, VirtioMem } from '../devices/evidence.js';
import { report, type Severity } from '../stream/issues.js';
import { pagesOf, type RamBlock, type WalkEvent } from '../stream/model.js';
import type { RamSection } from './ram.js';

/**
 * Why pages of a block are not in the stream. `shared`, `multifd` and `postcopy`: they went another way; `unplugged` and
 * `hinted`: the guest has nothing there; `cut`: the stream ends before them; `absent`: it should have them.
 */
export type MissingReason = 'shared' | 'multifd' | 'postcopy' | 'unplugged' | 'hinted' | 'cut' | 'absent';

export interface Missing {
  block: string;
  pages: number;
  reason: MissingReason;
  /** address in the block of the first of them */
  first: bigint;
  /** true if a reader of this stream has no right to take them for zeros */
  lost: boolean;
}

/** What a walk knows about the stream as a whole. */
export interface Circumstances {
  capabilities: readonly string[];
  evidence: Evidence;
  /** POSTCOPY_RUN came: the rest of the pages was asked for over a return path */
  postcopy: boolean;
  /** the RAM sections came to their end, or the whole stream did */
  ended: boolean;
}

/** Whether an issue is of memory that is missing. */
export const isMissingMemory = (code: string): boolean => code.startsWith('ram-') && code.slice(4) in reasons;

const reasons: Record<MissingReason, { severity: Severity; text: string }> = {
  shared: { severity: 'warning', text: 'the memory is shared with a file of the host (x-ignore-shared) and is not in the stream' },
  multifd: { severity: 'error', text: 'multifd sent them over other connections: this is the main channel only' },
  postcopy: { severity: 'error', text: 'postcopy sends them on demand, and this stream does not have them' },
  unplugged: { severity: 'note', text: 'they are unplugged memory of a virtio-mem device, which is never sent' },
  hinted: { severity: 'note', text: 'the guest reported them as free (free-page hints of virtio-balloon), so they were not sent' },
  cut: { severity: 'error', text: 'the stream ends before them' },
  absent: { severity: 'error', text: 'the stream does not have them: each page is sent at least once, zeros too' },
};

/** Tells of ranges [first, end) of a device's pages how many are plugged, and the first of them. The ranges have to come in order. */
function pluggedPages({ plugged = [], blockSize }: VirtioMem, pageSize: bigint) {
  const perBlock = blockSize / pageSize;
  let behind = 0;
  return (first: bigint, end: bigint): { pages: bigint; first: bigint } => {
    while (behind < plugged.length && plugged[behind]![1] * perBlock <= first) behind++;
    const found = { pages: 0n, first: 0n };
    for (let i = behind; i < plugged.length && plugged[i]![0] * perBlock < end; i++) {
      const [from, to] = plugged[i]!;
      const a = from * perBlock > first ? from * perBlock : first;
      const b = to * perBlock < end ? to * perBlock : end;
      if (found.pages === 0n) found.first = a;
      found.pages += b - a;
    }
    return found;
  };
}

/** Blocks of firmware and devices, which a guest does not use as memory, and which it cannot give back. */
const ofDevices = /^\/rom@|^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\/|flash|rom$|bios$/;

/** The RAM of a machine by QEMU's own name for it. */
export const mainRam = /^(pc|microvm|mach-virt|ppc_spapr|s390|riscv_virt_board|loongarch|m68k_virt|openrisc)\.ram$/;

type NamedBlock = Pick<RamBlock, 'name' | 'length'>;

/** Whether a block has the size of a device and its path in its name. */
const inName = ({ name, length }: NamedBlock, { size, section }: VirtioMem): boolean =>
  length === size && name.includes('/') && section.startsWith(name.slice(0, name.lastIndexOf('/') + 1));

/**
 * The virtio-mem device whose memory a block is: by the path in its name. A name may have none; then it is the only block of
 * that size that is nothing else.
 */
export function virtioMemOf(block: NamedBlock, blocks: readonly NamedBlock[], devices: readonly VirtioMem[]): VirtioMem | undefined {
  const own = devices.find((device) => inName(block, device));
  const open = (b: NamedBlock) => !ofDevices.test(b.name) && !mainRam.test(b.name) && !devices.some((device) => inName(b, device));
  if (own || !open(block)) return own;
  const fits = devices.filter((device) => device.size === block.length && !blocks.some((b) => inName(b, device)));
  const alone = blocks.filter((b) => b.length === block.length && open(b)).length === 1;
  return fits.length === 1 && alone ? fits[0] : undefined;
}

/** The missing pages of one block by their reasons. */
function ofBlock(ram: RamSection, index: number, around: Circumstances, anyContent: boolean): Missing[] {
  const block = ram.blocks[index]!;
  const { seen, tracked, zero, normal, xbzrle, compressed } = block.state;
  const all = pagesOf(block, ram.options.pageSize);
  const page = BigInt(ram.options.pageSize);
  const one = (reason: MissingReason, pages: number, first: bigint): Missing => ({
    block: block.name,
    pages,
    reason,
    first: first * page,
    lost: reason !== 'unplugged' && reason !== 'hinted',
  });
  if (block.shared) return [one('shared', all, 0n)];
  // Where not every page could be noted, there are certainly too few if there are fewer records than pages.
  const missing = tracked ? all - seen : Math.max(0, all - zero - normal - xbzrle - compressed);
  if (missing === 0) return [];
  if (seen === 0 && around.capabilities.includes('x-ignore-shared')) return [one('shared', all, 0n)];
  const device = virtioMemOf(block, ram.blocks, around.evidence.virtioMem);
  const plugged = device?.plugged && pluggedPages(device, page);
  let unplugged = 0;
  let rest = 0;
  let restAt = 0n;
  let unpluggedAt = 0n;
  for (const [first, end] of tracked ? ram.runs(index, 'missing') : []) {
    const has = plugged?.(BigInt(first), BigInt(end)) ?? { pages: BigInt(end - first), first: BigInt(first) };
    if (rest === 0) restAt = has.first;
    if (unplugged === 0) unpluggedAt = BigInt(first);
    rest += Number(has.pages);
    unplugged += end - first - Number(has.pages);
  }
  if (!tracked) rest = missing;
  const why = (): MissingReason => {
    if (ram.multifd) return 'multifd';
    if (around.postcopy) return 'postcopy';
    if (!around.ended) return 'cut';
    if (around.evidence.freePageHints && anyContent && !ofDevices.test(block.name)) return 'hinted';
    return 'absent';
  };
  return [...(unplugged > 0 ? [one('unplugged', unplugged, unpluggedAt)] : []), ...(rest > 0 ? [one(why(), rest, restAt)] : [])];
}

/** All missing pages of a walk that has ended, block by block. */
export function missingPages(ram: RamSection, around: Circumstances): Missing[] {
  const blocks = ram.update();
  const anyContent = blocks.some((b) => b.state.normal + b.state.xbzrle + b.state.compressed > 0);
  return blocks.flatMap((_, i) => ofBlock(ram, i, around, anyContent));
}

/** The same in words. */
export function missingText(m: Pick<Missing, 'pages' | 'reason'>): string {
  return `${m.pages} ${m.pages === 1 ? 'page is' : 'pages are'} missing: ${reasons[m.reason].text}`;
}

/** Issues about them. What a cut stream lacks is told already, by the issue about its end. */
export function* missingIssues(missing: readonly Missing[], position: number): Generator<WalkEvent> {
  for (const m of missing) {
    if (m.reason === 'cut') continue;
    const { severity } = reasons[m.reason];
    yield report(severity, `ram-${m.reason}`, position, `ram/${m.block}`, missingText(m), {
      ...(severity === 'error' && { found: `the first at ${hex64(m.first)} of the block` }),
    });
  }
}
