/** qcow2 images as sources, in both servers. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { vioctl } from '../support/cli.js';
import { daemonsOf } from '../support/qcow2-daemons.js';
import { skip, which } from '../support/skip.js';
import { at, both, refused, serve } from '../support/storage-servers.js';
import { eventually } from '../support/wait.js';

const missing = ['qemu-img', 'qemu-io', 'qemu-storage-daemon', 'setpriv', 'unshare'].find((program) => which(program) === undefined);
const qemu = (...words: string[]): void => {
  const { status, stderr } = spawnSync(words[0]!, words.slice(1), { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
};
/** An image over a backing file that begins with sevens. */
function overlay(): string {
  fs.mkdirSync(at('base'));
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', at('base/b'), '64M');
  qemu('qemu-io', '-c', 'write -P 7 0 1M', at('base/b'));
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', at('base/b'), '-F', 'qcow2', at('top'));
  return at('top');
}
test('a permitted backing file, writes, a daemon that dies, a second server, the end', async () => {
  if (missing) return skip('qcow2 sources', `needs ${missing}`);
  const image = overlay();
  const server = await serve('nvmf', `qcow2:${image},backing=${at('base')}`, '--control', at('ctl'), '--discovery-port', 'none');
  const { listen, subsystems } = JSON.parse(vioctl(['nvmf', 'ctl', at('ctl'), 'list', '--json']).stdout);
  const host = ['-s', String(listen[0].port), '-n', subsystems[0].nqn];
  const read = (bytes: number): Buffer => {
    expect(vioctl(['nvmf', 'read', ...host, '--count', String(bytes), '-d', at('read')])).toMatchObject({ status: 0 });
    return fs.readFileSync(at('read'));
  };
  expect(read(1 << 20).every((byte) => byte === 7)).toBe(true);
  const data = Buffer.alloc(2 << 20, 'what was written');
  fs.writeFileSync(at('data'), data);
  expect(vioctl(['nvmf', 'write', ...host, '-d', at('data')])).toMatchObject({ status: 0 });
  const [daemon] = daemonsOf(image);
  expect(daemon).toBeDefined();
  process.kill(daemon!, 'SIGKILL');
  expect(read(2 << 20).equals(data)).toBe(true); // a pause, no error
  await server.sees(/qemu-storage-daemon has ended \(SIGKILL\)/);
  expect(refused('nvmf', `qcow2:${image},backing=${at('base')}`)).toMatchObject({
    status: 3,
    stderr: expect.stringContaining('already in use'),
  });
  await server.stop('SIGTERM');
  await eventually(() => daemonsOf(image).length === 0);
  expect(daemonsOf(image)).toEqual([]);
  qemu('qemu-img', 'check', '-q', image);
  qemu('qemu-img', 'convert', '-O', 'raw', image, at('raw'));
  expect(fs.readFileSync(at('raw')).subarray(0, data.length).equals(data)).toBe(true);
});

test.each(both)('%s: a header that names a file outside of backing=DIR is refused', (server) => {
  if (missing) return skip('qcow2 sources: refusals', `needs ${missing}`);
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', at('evil'), '8M');
  qemu('qemu-img', 'rebase', '-u', '-b', '/etc/shadow', '-F', 'raw', at('evil'));
  for (const options of ['', `,backing=${at('')}`])
    expect(refused(server, `qcow2:${at('evil')}${options}`)).toMatchObject({ status: 3, stderr: expect.stringContaining('/etc/shadow') });
  expect(daemonsOf(at('evil'))).toEqual([]);
});

test.each(both)('%s: ctl reopen starts the daemon anew with the files that are there', async (kind) => {
  if (missing) return skip('qcow2 sources: reopen', `needs ${missing}`);
  const image = overlay();
  const server = await serve(kind, `qcow2:${image},backing=${at('base')}`, '--control', at('ctl'));
  const [before] = daemonsOf(image);
  const ctl = (): ReturnType<typeof vioctl> => vioctl([kind, 'ctl', at('ctl'), 'reopen', ...(kind === 'nvmf' ? ['1'] : [])]);
  expect(ctl()).toMatchObject({ status: 0, stderr: '' });
  const [after] = daemonsOf(image);
  expect(after).toBeDefined();
  expect(after).not.toBe(before);
  // a daemon that has died meanwhile is no obstacle, and there is one of them in the end
  process.kill(after!, 'SIGKILL');
  expect(ctl()).toMatchObject({ status: 0 });
  await sleep(300);
  expect(daemonsOf(image)).toHaveLength(1);
  // another file by this name is not taken
  fs.renameSync(image, `${image}.old`);
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', image, '64M');
  expect(ctl()).toMatchObject({ status: 3, stderr: expect.stringContaining('another file has this name now') });
  expect(daemonsOf(`${image}.old`)).toHaveLength(1);
  expect(await server.stop()).toBe(0);
});
