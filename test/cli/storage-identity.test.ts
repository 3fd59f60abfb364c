/** Block sizes and names of sources, as hosts and guests see them. */

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { Cns, identifyNamespace, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { deviceByName } from '../../src/vhost-user/wire/devices.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { at, both, image, lastSocket, refused, running, serve } from '../support/storage-servers.js';
import { Driver } from '../support/vhost-user.js';

test('a device with blocks of 4096 bytes is served with them', async () => {
  const { stdout, status } = spawnSync('losetup', ['-f', '--show', '-b', '4096', image('big', 16 << 20)], { encoding: 'utf8' });
  if (process.getuid?.() !== 0 || status !== 0) return skip('devices with 4096-byte blocks', 'needs root and losetup -b');
  const device = stdout.trim();
  try {
    const target = await serveTarget([device]);
    expect(target.namespaces[0]).toMatchObject({ blockSize: 4096, size: 16 << 20 });
    const host = await connectHost(target, { ioQueues: 1 });
    const at = rwCmd.encode({ slba: 1n, nlb: 0 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1 }));
    expect((await host.queues[0]!.send(at, { out: Buffer.alloc(4096, 'w') })).status.sc).toBe(0);
    const identified = identifyNamespace.decode(await host.identifyData(Cns.namespace, 1));
    expect(identified).toMatchObject({ nsfeat: 0x12, npwg: 0, npwa: 0, nawun: 0, nawupf: 0, noiob: 0 });
    expect(await target.stop()).toBe(0);
    for (const server of both)
      expect(refused(server, `${device},bs=512`)).toEqual({ status: 2, stderr: expect.stringContaining('blocks of 4096 bytes') });
    await serve('vhost-user', device);
    const window = await Window.open(await connect(lastSocket()));
    await window.start();
    const config = deviceByName('blk')!.config!.decode(Buffer.from((await window.front.config(0, 96))!));
    expect(config).toMatchObject({ capacity: BigInt((16 << 20) / 512), blk_size: 4096, physical_block_exp: 0, alignment_offset: 0 });
    expect(config.discard_sector_alignment).toBeGreaterThanOrEqual(8);
    const driver = new Driver(window);
    const read = Buffer.alloc(16);
    read.writeBigUInt64LE(8n, 8);
    expect(await driver.request([read], 4097)).toEqual(Buffer.concat([Buffer.alloc(4096, 'w'), Buffer.from([0])]));
    window.close();
  } finally {
    for (const server of running.splice(0)) await server.stop();
    spawnSync('losetup', ['-d', device]);
  }
});

describe('identity', () => {
  const nqn = 'nqn.2014-08.org.example:identity';
  const idsUnder = async (name: string, ...args: string[]): Promise<string[]> => {
    const target = await serveTarget([...args, '--nqn', name]);
    const ids = target.namespaces.map((ns) => ns.nguid);
    expect(await target.stop()).toBe(0);
    return ids;
  };
  const idsOf = (...args: string[]) => idsUnder(nqn, ...args);

  test('a renamed file keeps it, a copy has its own, two servers of one file give the same', async () => {
    const file = image('disk');
    const [first] = await idsOf(file);
    fs.renameSync(file, `${file}2`);
    expect(await idsOf(`${file}2`)).toEqual([first]);
    fs.copyFileSync(`${file}2`, file);
    expect(await idsOf(file)).not.toEqual([first]);
    const targets = await Promise.all([0, 1].map(() => serveTarget([`${file}2,shared=on`, '--nqn', nqn])));
    expect(targets.map((target) => target.namespaces[0]!.nguid)).toEqual([first, first]);
    for (const target of targets) expect(await target.stop()).toBe(0);
    expect(await idsUnder(`${nqn}2`, `${file}2`)).not.toEqual([first]);
  });

  test('uuid= and nguid= give it, once in a subsystem; --state-dir keeps what a source was called', async () => {
    const [a, b, states] = [image('a'), image('b'), at('state')];
    const nguid = '00112233445566778899aabbccddeeff';
    expect(await idsOf(`${a},nguid=${nguid}`)).toEqual([nguid]);
    const uuid = '6ba7b810-9dad-11d1-80b4-00c04fd430c8';
    const [given] = await idsOf(`${a},uuid=${uuid}`);
    expect(await idsOf(`${b},uuid=${uuid}`)).toEqual([given]); // a copy takes its place
    expect(refused('nvmf', `${a},uuid=${uuid}`, `${b},uuid=${uuid}`)).toEqual({
      status: 3,
      stderr: expect.stringMatching(/namespace 1 of \S+ has this UUID already\n.*hint: append ,uuid=/),
    });
    expect(refused('nvmf', `${a},uuid=x`).status).toBe(2);
    const [plain] = await idsOf(a);
    expect(await idsOf(a, '--state-dir', states)).toEqual([plain]);
    const file = path.join(states, 'identities.json');
    const state = JSON.parse(fs.readFileSync(file, 'utf8'));
    state.sources[0].identity = 'what an older kernel called it';
    fs.writeFileSync(file, JSON.stringify(state));
    const [kept] = await idsOf(a, '--state-dir', states);
    expect(kept).not.toBe(plain);
    expect(await idsOf(a, '--state-dir', states)).toEqual([kept]);
    fs.writeFileSync(file, 'no state');
    for (const server of both)
      expect(refused(server, a, '--state-dir', states)).toEqual({
        status: 5,
        stderr: expect.stringMatching(/identities\.json is damaged: .*\n.*hint: .*rm /),
      });
  });
});
