import type { ChalkInstance } from 'chalk';
import type { SelftestReport } from '../../vfio/selftest/selftest.js';
import type { readConfigSpace } from '../../vfio/session/config.js';
import type { Inside } from '../../vfio/session/inspect.js';

/** The text form of a self-test. */
export function selftestLines(report: SelftestReport, chalk: ChalkInstance): string[] {
  const verdict = report.ok ? chalk.green('passed') : chalk.red('FAILED');
  return [
    `${report.bdf}: ${report.device} through ${report.api}: ${verdict} in ${report.milliseconds} ms`,
    ...report.checks.map((check) => `  ${check.ok ? chalk.green('ok  ') : chalk.red('FAIL')} ${check.name.padEnd(16)} ${check.detail}`),
  ];
}

/** Header registers and capabilities. */
export function configLines({ registers, capabilities }: ReturnType<typeof readConfigSpace>, chalk: ChalkInstance): string[] {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return [
    ...registers.map((r) => `${hex(r.offset, 2)}  ${r.name.padEnd(20)} ${hex(r.value, 2 * r.width)}`),
    ...capabilities.map(
      (c) => `${hex(c.offset, c.extended ? 3 : 2)}  ${chalk.bold(c.name)}${c.detail === undefined ? '' : ` (${c.detail})`}`,
    ),
  ];
}

/** Lines below those of `vfio show`. */
export function insideLines(inside: Inside | undefined): string[] {
  if (!inside) return [];
  if (!inside.open) return [`not opened   ${inside.why}`];
  const size = (bytes: number) => `0x${bytes.toString(16)}`;
  return [
    `opened by    ${inside.api}; ${inside.reset ? 'can be reset alone' : 'cannot be reset alone'}; hot reset: ${inside.hotReset.join(', ') || 'none'}`,
    ...inside.regions.map((r) => {
      const part = r.sparse ? ` (${r.areas.map((a) => `${size(a.offset)}+${size(a.size)}`).join(', ')})` : '';
      return `  region     ${r.name.padEnd(7)} ${size(r.size).padEnd(10)} ${r.flags.join(' ')}${part}${r.msixMappable ? ', MSI-X table too' : ''}`;
    }),
    ...inside.irqs.map((irq) => `  interrupt  ${irq.name.padEnd(7)} ${String(irq.count).padEnd(10)} ${irq.flags.join(' ')}`),
  ];
}

/** Bytes as lines of sixteen, as `xxd -g1` and lspci print them; runs of equal lines are shortened to `*`. */
export function hexLines(bytes: Uint8Array, start = 0): string[] {
  const lines: string[] = [];
  let last = '';
  let starred = false;
  for (let at = 0; at < bytes.length; at += 16) {
    const row = Buffer.from(bytes.subarray(at, at + 16));
    const hex = [...row].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const more = at + 16 < bytes.length;
    if (hex === last && more) {
      if (!starred) lines.push('*');
      starred = true;
      continue;
    }
    starred = false;
    last = hex;
    lines.push(`${(start + at).toString(16).padStart(8, '0')}: ${hex}`);
  }
  return lines;
}
