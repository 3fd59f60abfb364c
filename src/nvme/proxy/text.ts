import { printable } from '../../common/escape.js';
import { hex64 } from '../../common/units.js';
import type { ProxyRecord } from './proxy.js';

const show = (value: unknown): string => {
  if (typeof value === 'bigint') return hex64(value);
  if (typeof value === 'object' && value !== null)
    return `{${Object.entries(value)
      .map(([k, v]) => `${k}=${show(v)}`)
      .join(' ')}}`;
  return printable(String(value));
};

/** A record as one line for people. */
export function describeRecord(record: ProxyRecord): string {
  const head = `${record.time.toFixed(6).padStart(11)} #${record.connection}`;
  if (record.event !== 'pdu')
    return `${head} ${record.event}${record.peer ? ` by ${record.peer}` : ''}${record.why ? `: ${printable(record.why)}` : ''}`;
  const { dir, type, plen, cid, command, status, latency, fields, faults } = record;
  const parts = [
    head,
    dir === 'h2c' ? '->' : '<-',
    type.padEnd(11),
    `${plen} B`,
    ...(cid === undefined ? [] : [`cid ${cid}`]),
    ...(command === undefined ? [] : [printable(command)]),
    ...(status === undefined ? [] : [status]),
    ...(latency === undefined ? [] : [`${latency} us`]),
    ...(fields === undefined || status !== undefined
      ? []
      : [
          Object.entries(fields)
            .map(([k, v]) => `${k}=${show(v)}`)
            .join(' '),
        ]),
    ...(faults === undefined ? [] : [`FAULT ${faults.join(' ')}`]),
  ];
  return parts.join(' ');
}
