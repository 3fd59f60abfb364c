import type { ChalkInstance } from 'chalk';
import type { SelftestReport } from '../../vfio/selftest/selftest.js';
import type { readConfigSpace } from '../../vfio/session/config.js';

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
