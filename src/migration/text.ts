/** Results as lines of text. */
import { printable } from '../common/escape.js';
import { formatSize } from '../common/units.js';
import type { Extracted } from './extract.js';
import type { Verification } from './verify.js';

const hex = (v: bigint): string => `0x${v.toString(16)}`;

export function extractedLines(done: Extracted, output: string): string[] {
  const ranges = done.ranges.map((r) => `${printable(r.block)} ${hex(r.address)}-${hex(r.address + r.length - 1n)} at ${hex(r.offset)}`);
  const missing = done.blocks.filter((b) => b.present < b.pages || b.undecodable > 0);
  return [
    `${printable(output)}: ${formatSize(done.size)} ${done.as}${done.cpus > 0 ? `, ${done.cpus} CPUs` : ''}`,
    ...ranges,
    ...missing.map(
      (b) => `${printable(b.name)}: ${b.pages - b.present} of ${b.pages} pages are not in the stream, ${b.undecodable} undecodable`,
    ),
  ];
}

const verdicts: Record<Verification['verdict'], string> = {
  complete: 'complete',
  'complete-without-description': 'complete, without a description of the devices',
  truncated: 'truncated',
  damaged: 'damaged',
};

export function verificationLines(v: Verification): string[] {
  const ram = v.ram ? [`RAM: ${v.ram.present} of ${v.ram.pages} pages present (${v.ram.percent} %)`] : [];
  return [
    `${verdicts[v.verdict]}${v.end === undefined ? '' : ` at ${hex(v.end)}`}`,
    ...(v.machine ? [`machine ${printable(v.machine)}`] : []),
    ...ram,
    `${v.sections} sections, ${v.devices} devices`,
    ...(v.trailing ? [`${v.trailing} bytes behind the end`] : []),
  ];
}
