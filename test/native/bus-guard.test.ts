import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { addonFile, preamble, runScript } from '../support/addon.js';
import { compileC } from '../support/compile.js';

/** Sources and memories over files of 1 MiB, each with its pages in use; `lose` truncates them. */
const setup = (file: string) => `
const file = ${JSON.stringify(file)};
fs.writeFileSync(file, Buffer.alloc(1 << 20, 0x5a));
const fd = fs.openSync(file, 'r+');
const source = () => {
  const handle = addon.migration.openSource({ fd, kind: 'file', start: 0 });
  if (addon.migration.read(handle, 4)[0] !== 0x5a) throw new Error('no data');
  return handle;
};
const memory = () => addon.vfio.fileMemory(file, 1n << 20n, true, 0n, 0n);
const lose = () => fs.ftruncateSync(fd, 0);
const outcome = (handle) => {
  addon.migration.read(handle, 1 << 16);
  return addon.migration.sourceState(handle).errno;
};
const failure = (work) => { try { work(); return 'none'; } catch (err) { return err.code; } };
`;

describe('mapped files that are truncated', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-bus-'));
  const file = path.join(dir, 'file');
  afterAll(() => fs.rmSync(dir, { recursive: true }));

  test('hundreds of mappings at a time are guarded, readable and writable ones', () => {
    const run = runScript(`${setup(file)}
      const sources = Array.from({ length: 300 }, source), memories = Array.from({ length: 100 }, memory);
      const bytes = Buffer.alloc(8);
      memories.forEach((m, i) => addon.vfio.readMemory(m, (i * 4096) % (1 << 20), bytes));
      lose();
      console.log(new Set(sources.map(outcome)));
      console.log(new Set(memories.map((m, i) => failure(() => i % 2 ? addon.vfio.readMemory(m, 1 << 19, bytes) : addon.vfio.writeMemory(m, 1 << 19, bytes)))));
      // The loss is remembered, and slots that are given back serve again.
      console.log(failure(() => addon.vfio.readMemory(memories[0], 0, bytes)));
      for (const m of memories) addon.vfio.closeMemory(m);
      fs.ftruncateSync(fd, 1 << 20);
      const again = Array.from({ length: 100 }, memory);
      console.log(failure(() => again.forEach((m) => addon.vfio.readMemory(m, 1 << 19, bytes))));
    `);
    expect(run).toEqual({
      status: 0,
      signal: null,
      stderr: '',
      stdout: "Set(1) { 'EIO' }\nSet(1) { 'EIO' }\nEIO\nnone\n",
    });
  });

  test.each(['4096', '16384', '65536'])('pages of %s bytes', (size) => {
    const run = runScript(
      `${setup(file)}
      console.log(addon.common.pageSize());
      const s = source(), m = memory(), bytes = Buffer.alloc(16);
      addon.migration.seek(s, 300001);
      addon.migration.read(s, 100);
      lose();
      console.log(outcome(s), failure(() => addon.vfio.writeMemory(m, 70001, bytes)));
    `,
      { env: { VIOCTL_TEST_PAGE_SIZE: size } },
    );
    expect(run).toMatchObject({ status: 0, stdout: `${size}\nEIO EIO\n` });
  });

  test('workers at once, each with mappings of its own', () => {
    const run = runScript(`
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      const file = (i) => ${JSON.stringify(file)} + i;
      const code = (i) => ${JSON.stringify(preamble)} + ${JSON.stringify(setup(file))}.replace('"' + ${JSON.stringify(file)} + '"', JSON.stringify(file(i))) + \`
        const held = Array.from({ length: 20 }, source).concat([]);
        require('node:worker_threads').parentPort.once('message', () => {
          require('node:worker_threads').parentPort.postMessage([...new Set(held.map(outcome))].join());
        }).postMessage('ready');
      \`;
      const workers = Array.from({ length: 4 }, (_, i) => new Worker(code(i), { eval: true }));
      let ready = 0;
      for (const worker of workers) worker.on('message', (m) => {
        if (m !== 'ready') return console.log(m);
        if (++ready < workers.length) return;
        for (let i = 0; i < workers.length; i++) fs.truncateSync(file(i), 0);
        for (const each of workers) each.postMessage(1);
      });
    `);
    expect(run).toEqual({ status: 0, signal: null, stderr: '', stdout: 'EIO\nEIO\nEIO\nEIO\n' });
  });

  test('a SIGBUS of somebody else goes to the handler before us, and ends the process where there was none', () => {
    if (addonFile.includes('asan')) return; // its runtime is preloaded first and has handlers of its own
    const preload = compileC('test/fixtures/native/sigbus.c', path.join(dir, 'sigbus.so'), ['-shared', '-fPIC']);
    const wait = 'setInterval(() => {}, 1000);';
    const send = (signal: string, env: NodeJS.ProcessEnv = {}) =>
      runScript(`${setup(file)} const s = source(); ${wait} process.kill(process.pid, '${signal}');`, { env });
    expect(send('SIGBUS', { LD_PRELOAD: preload })).toMatchObject({ status: 42, signal: null });
    expect(send('SIGUSR2', { LD_PRELOAD: preload })).toMatchObject({ status: 43, signal: null });
    expect(send('SIGBUS')).toMatchObject({ status: null, signal: 'SIGBUS' });
  });
});
