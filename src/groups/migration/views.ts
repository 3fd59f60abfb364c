/** Results as lines of text. */
import type { ChalkInstance } from 'chalk';
import { bar, barWidth } from '../../cli/output/bars.js';
import { printable } from '../../common/escape.js';
import { formatSize, hex64 } from '../../common/units.js';
import type { Extracted } from '../../migration/export/extract.js';
import type { Against } from '../../migration/inspect/against.js';
import type { Comparison } from '../../migration/inspect/diff.js';
import type { Statistics } from '../../migration/inspect/stat.js';
import type { Verification } from '../../migration/inspect/verify.js';
import { type Missing, missingText } from '../../migration/memory/missing.js';
import type { Value } from '../../migration/stream/model.js';

export function extractedLines(done: Extracted, output: string): string[] {
  const ranges = done.ranges.map(
    (r) => `${printable(r.block)} ${hex64(r.address)}-${hex64(r.address + r.length - 1n)} at ${hex64(r.offset)}`,
  );
  const missing = done.blocks.filter((b) => (b.present < b.pages && !done.missing) || b.undecodable > 0);
  return [
    `${printable(output)}: ${formatSize(done.size)} ${done.as}${done.cpus > 0 ? `, ${done.cpus} CPUs` : ''}${done.vmcoreinfo ? ', VMCOREINFO' : ''}`,
    ...ranges,
    ...missing.map((b) =>
      b.tracked === false
        ? `${printable(b.name)}: at least ${b.present} of ${b.pages} pages are in the stream, ${b.undecodable} undecodable`
        : `${printable(b.name)}: ${b.pages - b.present} of ${b.pages} pages are not in the stream, ${b.undecodable} undecodable`,
    ),
    ...missingLines(done.missing),
    ...(done.unplaced ?? []).map((u) => `${printable(u.block)} ${formatSize(u.length)}: left out, its address is not known`),
  ];
}

/** One line for each block and reason. */
export const missingLines = (missing: readonly Missing[] = []): string[] => missing.map((m) => `${printable(m.block)}: ${missingText(m)}`);

const verdicts: Record<Verification['verdict'], string> = {
  complete: 'complete',
  'complete-without-description': 'complete, without a description of the devices',
  'memory-elsewhere': 'whole as a stream, but memory of the guest is elsewhere',
  truncated: 'truncated',
  damaged: 'damaged',
};

export function verificationLines(v: Verification): string[] {
  const ram = v.ram ? [`RAM: ${v.ram.present} of ${v.ram.pages} pages present (${v.ram.percent} %)`] : [];
  return [
    `${verdicts[v.verdict]}${v.end === undefined ? '' : ` at ${hex64(v.end)}`}`,
    ...(v.machine ? [`machine ${printable(v.machine)}`] : []),
    ...(v.capabilities ? [`capabilities ${v.capabilities.map(printable).join(' ')}`] : []),
    ...ram,
    ...missingLines(v.missing),
    `${v.sections} sections, ${v.devices} devices`,
    `stream from ${hex64(v.stream.start)} to ${hex64(v.stream.end)}: ${v.stream.length} bytes`,
    ...(v.trailing ? [`${v.trailing} bytes behind the end`] : []),
  ];
}

/** @param from of bytes: the first that is shown */
const value = (v: Value | undefined, from = 0): string => {
  if (v instanceof Uint8Array) {
    const shown = Buffer.from(v.subarray(from, from + 16)).toString('hex');
    return `${from > 0 ? '…' : ''}${shown}${v.length > from + 16 ? '…' : ''}`;
  }
  return typeof v === 'bigint' ? hex64(v) : printable(String(v));
};

export function statisticsLines(s: Statistics, _chalk: ChalkInstance, room: number): string[] {
  const most = s.sections.reduce((max, { bytes }) => Math.max(max, bytes), s.other);
  const drawn = (bytes: number) => bar(bytes, most, barWidth(room)).padEnd(barWidth(room));
  const width = Math.max(4, ...s.sections.map((x) => formatSize(x.bytes).length));
  return [
    `${formatSize(s.size)}${s.machine ? `, machine ${printable(s.machine)}` : ''}`,
    ...s.sections.map((x) => {
      const parts = x.parts > 1 ? ` in ${x.parts} parts` : '';
      return `${formatSize(x.bytes).padStart(width)}  ${x.share.toFixed(2).padStart(6)} %  ${drawn(x.bytes)}  ${printable(x.name)}${x.instance ? ` #${x.instance}` : ''}${parts}`;
    }),
    `${formatSize(s.other).padStart(width)}  ${((s.other / Math.max(1, s.size)) * 100).toFixed(2).padStart(6)} %  ${drawn(s.other)}  header, commands, description`,
    ...s.blocks.map((b) => {
      const counts = {
        zero: b.zero,
        whole: b.normal,
        xbzrle: b.xbzrle,
        compressed: b.compressed,
        'sent again': b.resent,
        distinct: b.distinct ?? 0,
      };
      const shown = Object.entries(counts).flatMap(([k, n]) => (n > 0 ? [`${n} ${k}`] : []));
      return `block ${printable(b.name)} ${formatSize(b.length)}: ${b.pages} pages: ${shown.join(', ') || 'none sent'}`;
    }),
    ...missingLines(s.missing),
  ];
}

export function comparisonLines(c: Comparison): string[] {
  const lines = c.differences.map((d) => {
    const path = printable(d.path);
    const what = d.values === undefined ? value(d.a ?? d.b) : `(${d.values} values)`;
    if (d.kind !== 'changed') return `${d.kind === 'only-a' ? '-' : '+'} ${path} ${what}`;
    const from = d.first ?? 0;
    const where = from > 0 ? ` from byte ${from} on, ${d.bytes} bytes differ:` : '';
    return `! ${path}${where} ${value(d.a, from)} -> ${value(d.b, from)}`;
  });
  const ram = (c.ram ?? []).map(
    (r) =>
      `${r.changed > 0 || r.unknown > 0 ? '!' : ' '} ram/${printable(r.block)}: ${r.changed} of ${r.pages} pages differ${r.unknown ? `, ${r.unknown} not known (XBZRLE)` : ''}`,
  );
  return c.equal ? ['no differences', ...ram] : [...lines, ...ram];
}

/** Whether a destination loads a stream, and every obstacle. */
export function againstLines(judged: Against): string[] {
  const why = judged.obstacles.flatMap((o) => [`${printable(o.path)}: ${printable(o.message)}`, `  ${printable(o.cure)}`]);
  const { sections, of } = judged.compared;
  const verdict =
    judged.loads === null
      ? 'whether the destination loads it is not known: no device could be compared'
      : judged.loads
        ? 'the destination loads it, as far as could be compared'
        : 'the destination does not load it';
  return [verdict, ...why, `${sections} of ${of} sections compared`, ...judged.notes.map(printable)];
}
