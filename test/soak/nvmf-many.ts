/**
 * Memory and idle processor time of a target with many namespaces and hosts:
 * `npm run soak -- nvmf-many [--namespaces N] [--hosts N] [--seconds N]`. Hosts have one I/O queue, a keep-alive time-out of
 * 30 s, and wait for events, as Linux hosts do. Fails above 250 MB or 1 % of a processor.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Controller } from '../../src/nvme/host/controller.js';
import { Fid } from '../../src/nvme/wire/index.js';
import { serveTarget } from '../support/nvme-target.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: {
    namespaces: { type: 'string', default: '500' },
    hosts: { type: 'string', default: '256' },
    seconds: { type: 'string', default: '30' },
  },
});
const mostMemory = 250e6;
const mostProcessor = 1; // percent

/** Clock ticks that a process has used (proc(5), utime and stime). */
function ticksOf(pid: number): number {
  const fields = fs
    .readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
const memoryOf = (pid: number): number => Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
const ticksPerSecond = 100; // USER_HZ, the same on every Linux machine

async function main(): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
  const file = path.join(dir, 'disk.img');
  const nqn = 'nqn.2014-08.org.example:many';
  fs.writeFileSync(
    path.join(dir, 'nvmf.json'),
    JSON.stringify({
      listen: ['127.0.0.1:0'],
      subsystems: [{ nqn, namespaces: Array.from({ length: Number(values.namespaces) }, (_, i) => ({ source: `${file}${i}` })) }],
    }),
  );
  for (let i = 0; i < Number(values.namespaces); i++) {
    fs.writeFileSync(`${file}${i}`, '');
    fs.truncateSync(`${file}${i}`, 1 << 20);
  }
  const target = await serveTarget(['--config', path.join(dir, 'nvmf.json')]);
  const pid = target.child.pid!;
  const alone = memoryOf(pid);
  const hosts: Controller[] = [];
  try {
    for (let i = 1; i <= Number(values.hosts); i++) {
      const hostid = Buffer.alloc(16);
      hostid.writeUInt32BE(i, 0);
      const hostnqn = `nqn.2014-08.org.example:host${i}`;
      const at = { address: '127.0.0.1', port: target.port, timeout: 60_000, keepAlive: 30_000 };
      const host = await Controller.connect({ ...at, subnqn: nqn, hostnqn, hostid, ioQueues: 1, queueSize: 128 });
      hosts.push(host);
      await host.setFeature(Fid.asyncEventConfiguration, 0x900);
      host.nextEvent().catch(() => {});
      const nsids = await host.namespaces();
      if (nsids.length !== Number(values.namespaces)) throw new Error(`${nsids.length} namespaces`);
      for (const nsid of nsids.slice(0, 8)) await host.namespace(nsid);
    }
    const before = ticksOf(pid);
    await new Promise((resolve) => setTimeout(resolve, Number(values.seconds) * 1000));
    const processor = ((ticksOf(pid) - before) / ticksPerSecond / Number(values.seconds)) * 100;
    const memory = memoryOf(pid);
    const figures = `RSS ${(memory / 1e6).toFixed(0)} MB (${(alone / 1e6).toFixed(0)} MB without hosts), idle processor time ${processor.toFixed(2)} %`;
    console.log(`${values.namespaces} namespaces, ${values.hosts} hosts: ${figures}`);
    if (memory > mostMemory || processor > mostProcessor) process.exitCode = 1;
  } finally {
    for (const host of hosts) host.close();
    await target.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

void main();
