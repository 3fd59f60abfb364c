// Runs in the guest: the cases of VFIO sessions, one after another, for the given APIs (those of cases.ts).
import { spawnSync } from 'node:child_process';
import { later, refusals } from './cases.js';
import { closing } from './devices.js';
import { AER, EDU, GROUP_EDU, must, NIC, NVME, runCases, type SessionCase } from './harness.js';
import { poke } from './programs.js';

async function main([first, ...rest]: string[]): Promise<void> {
  if (first === 'closing') return closing(rest[0] as 'group' | 'cdev', rest[1]!);
  if (first === 'poke') return poke(rest);
  const apis = [first!, ...rest];
  const only = process.env.CASES;
  const wanted = ({ name, once }: SessionCase) =>
    (only === undefined || new RegExp(only).test(name)) && (!once || process.env.ONCE === '1');
  const bind = (...bdfs: string[]) => must(`node bin/run.js vfio bind ${bdfs.join(' ')} >&2; chmod 666 /dev/vfio/*`);
  spawnSync('modprobe', ['e1000']);
  bind(EDU, NVME, AER);
  await runCases(refusals.filter(wanted), apis);
  bind(NIC, GROUP_EDU);
  await runCases(later.filter(wanted), apis);
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (err: unknown) => {
    console.error(err);
    process.exit(1);
  },
);
