import type { ChalkInstance } from 'chalk';
import type { SelftestReport } from './selftest.js';

/** The text form of a self-test. */
export function selftestLines(report: SelftestReport, chalk: ChalkInstance): string[] {
  return [
    `${report.bdf}: ${report.device} through ${report.api}: ${report.ok ? chalk.green('passed') : chalk.red('FAILED')} in ${report.milliseconds} ms`,
    ...report.checks.map((check) => `  ${check.ok ? chalk.green('ok  ') : chalk.red('FAIL')} ${check.name.padEnd(16)} ${check.detail}`),
  ];
}
