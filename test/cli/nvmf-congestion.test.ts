/** Which congestion control the connections of targets and hosts have: none that paces within this machine, else that of the system. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { endsWithTests } from '../support/children.js';
import { plainEnv, program } from '../support/cli.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { skip, which } from '../support/skip.js';

const system = fs.readFileSync('/proc/sys/net/ipv4/tcp_congestion_control', 'utf8').trim();

let target: ServedTarget;
let load: ChildProcess;
afterEach(async () => {
  load?.kill();
  await target?.stop();
});

/** Starts a load that has one connection for its I/O; it lasts as long as the test. */
async function connected(address: string, through: string[] = []): Promise<void> {
  const argv = ['nvmf', 'bench', '-a', address, '-s', String(target.port), '-n', target.nqn, '--runtime', '60s'];
  const [command = '', ...args] = [...through, process.execPath, program, ...argv];
  load = endsWithTests(spawn(command, args, { env: plainEnv(), stdio: ['ignore', 'ignore', 'pipe'] }));
  let errors = '';
  load.stderr!.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const gone = once(load, 'close').then(([status]) => Promise.reject(new Error(`the load ended with ${status}: ${errors}`)));
  gone.catch(() => {});
  while (controls().length < 2) await Promise.race([gone, new Promise((resolve) => setTimeout(resolve, 50))]);
}

/** The congestion control of each connection at the target's port, both ends of those within this machine. */
const controls = (): string[] =>
  execFileSync('ss', ['-tinH', 'state', 'established', `( sport = :${target.port} or dport = :${target.port} )`], { encoding: 'utf8' })
    .split('\n')
    .flatMap((line) => /^\t\s*(?:ts )?(?:sack )?(?:ecn )?(?:ecnseen )?(?:fastopen )?(\S+)/.exec(line)?.[1] ?? []);

test.each(['127.0.0.1', '::1'])('both ends of a connection to %s', async (address) => {
  if (which('ss') === undefined) return skip('congestion control of connections', 'no ss (iproute2)');
  target = await serveTarget(['ram:1M', '--listen', address.includes(':') ? `[${address}]:0` : `${address}:0`]);
  await connected(address);
  expect(new Set(controls())).toEqual(new Set(['reno']));
});

test('a host in another network', async () => {
  if (process.getuid!() !== 0) return skip('congestion control of a connection between networks', 'needs root');
  if (which('ss') === undefined || which('ip') === undefined) return skip('congestion control of connections', 'no iproute2');
  const name = `vio${process.pid}`;
  const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });
  ip('netns', 'add', name);
  try {
    ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    ip('addr', 'add', '198.51.100.1/30', 'dev', name);
    ip('link', 'set', name, 'up');
    ip('-n', name, 'addr', 'add', '198.51.100.2/30', 'dev', 'eth0');
    ip('-n', name, 'link', 'set', 'eth0', 'up');
    target = await serveTarget(['ram:1M', '--listen', '198.51.100.1:0']);
    await connected('198.51.100.1', ['ip', 'netns', 'exec', name]);
    expect(new Set(controls())).toEqual(new Set([system]));
  } finally {
    load?.kill();
    ip('netns', 'del', name);
  }
});
