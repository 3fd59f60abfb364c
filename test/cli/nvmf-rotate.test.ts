/** Keys rotate under load: hosts come, go, stay and authenticate again, and every block that was written is read back. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { power } from '../../src/nvme/auth/dh.js';
import { authenticate } from '../../src/nvme/auth/host.js';
import { formatChapKey, formatTlsKey, type Key } from '../../src/nvme/auth/keys.js';
import { tlsPsk } from '../../src/nvme/auth/tls-psk.js';
import { Controller, Namespace } from '../../src/nvme/host/index.js';
import { AdminOpcode, authCmd, authProtocol, Fctype, sqe as sqeTable } from '../../src/nvme/wire/index.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

jest.setTimeout(300_000);
const nqn = 'nqn.2014-08.org.example:rotating';
const hostnqn = 'nqn.2014-08.org.example:host';
/** Rotations; every other one by SIGHUP. */
const rotations = 12;
/** Blocks of 4 KiB that a host writes and reads back in a round. */
const blocks = 8;
const block = 4096;

interface Keys {
  host: Key;
  controller: Key;
  tls: Key;
}
const fresh = (): Keys => ({
  host: { hash: 1, bytes: randomBytes(32) },
  controller: { hash: 2, bytes: randomBytes(48) },
  tls: { hash: 1, bytes: randomBytes(32) },
});

let dir: string;
let target: ServedTarget;
let now = fresh();
/** While keys change, nobody begins to connect: which of them holds would be a matter of luck. */
let changing: Promise<void> = Promise.resolve();
let connecting = 0;
const at = (name: string) => path.join(dir, name);
function writeKeys({ host, controller, tls }: Keys): void {
  const files = { host: formatChapKey(host), controller: formatChapKey(controller), tls: formatTlsKey(tls) };
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(at(name), text, { mode: 0o600 });
}

beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-rotate-'));
  writeKeys(now);
  const keys = [{ host: hostnqn, dhchapSecretFile: 'host', dhchapCtrlSecretFile: 'controller', tlsKeyFile: 'tls' }];
  const subsystems = [{ nqn, namespaces: [{ source: 'ram:16M' }] }];
  fs.writeFileSync(at('config.json'), JSON.stringify({ listen: ['127.0.0.1:0'], keys, dhchapGroups: ['ffdhe2048'], subsystems }));
  target = await serveTarget(['--config', at('config.json'), '--control', at('ctl')]);
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

async function connect(): Promise<Controller> {
  await changing;
  connecting++;
  try {
    const { host: key, controller: controllerKey, tls } = now;
    return await Controller.connect({
      ...{ address: '127.0.0.1', port: target.port, timeout: 60_000, subnqn: nqn, hostnqn, hostid: Buffer.alloc(16, 5), ioQueues: 1 },
      chap: { key, controllerKey },
      tls: [tlsPsk(tls, hostnqn, nqn)],
    });
  } finally {
    connecting--;
  }
}

/** Authenticates an admin queue that is open already. */
async function again(controller: Controller): Promise<void> {
  await changing;
  connecting++;
  try {
    const run = (fctype: number, size: number) => {
      const sqe = sqeTable.encode({ opcode: AdminOpcode.fabrics, fctype });
      return authCmd.encode({ ...authProtocol, length: size }, sqe);
    };
    const transport = {
      send: async (message: Buffer) => void (await controller.admin.run(run(Fctype.authSend, message.length), { out: message })),
      receive: async (size: number) => {
        const into = Buffer.alloc(size);
        await controller.admin.run(run(Fctype.authReceive, size), { into });
        return into;
      },
    };
    await authenticate(transport, { key: now.host, controllerKey: now.controller, hostnqn, subnqn: nqn, power });
  } finally {
    connecting--;
  }
}

/** Writes new data and reads it back. @param part of the disk that is this host's own */
async function round(controller: Controller, part: number): Promise<void> {
  const disk = new Namespace(controller, await controller.namespace(1));
  for (let i = 0; i < blocks; i++) {
    const data = randomBytes(block);
    const back = Buffer.alloc(block);
    const lba = BigInt((part * blocks + i) * (block / 512));
    await disk.write(lba, data);
    await disk.read(lba, back);
    if (!back.equals(data)) throw new Error(`block ${i} of host ${part} is not what was written`);
  }
}

test('no error, and no wrong block', async () => {
  let over = false;
  const rounds = [0, 0, 0, 0];
  const stays = async (part: number, repeats: boolean) => {
    const controller = await connect();
    while (!over) {
      await round(controller, part);
      if (repeats) await again(controller);
      rounds[part]!++;
    }
    await controller.disconnect();
  };
  const comes = async (part: number) => {
    while (!over) {
      const controller = await connect();
      await round(controller, part);
      await controller.disconnect();
      rounds[part]!++;
    }
  };
  const rotate = async () => {
    for (let i = 0; i < rotations; i++) {
      const seen = [...rounds];
      while (!over && !rounds.every((count, part) => count > seen[part]!)) await sleep(5); // each has had its turn with these keys
      if (over) return;
      const stale = now;
      let done = () => {};
      changing = new Promise((resolve) => {
        done = resolve;
      });
      while (connecting > 0) await sleep(1);
      now = fresh();
      writeKeys(now);
      if (i % 2 === 0) {
        const { status, stderr } = await nvmf(['ctl', at('ctl'), 'keys', 'rotate']);
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      } else {
        const told = () => target.messages().match(/keys? of/g)?.length ?? 0;
        const before = told();
        target.child.kill('SIGHUP');
        while (!over && told() === before) await sleep(5);
      }
      done();
      if (i % 4 > 1) continue;
      const old = { address: '127.0.0.1', port: target.port, timeout: 60_000, subnqn: nqn, hostnqn, hostid: Buffer.alloc(16, 5) };
      const mixed = { ...old, chap: { key: stale.host }, tls: [tlsPsk(now.tls, hostnqn, nqn)] };
      await expect(Controller.connect(mixed)).rejects.toMatchObject({ exit: 6 });
      await expect(Controller.connect({ ...mixed, tls: [tlsPsk(stale.tls, hostnqn, nqn)] })).rejects.toMatchObject({ exit: 6 });
    }
  };
  const hosts = [stays(0, false), stays(1, true), comes(2), comes(3)];
  await Promise.race([rotate(), Promise.all(hosts)]).finally(() => {
    over = true;
  });
  await Promise.all(hosts);
  expect(Math.min(...rounds)).toBeGreaterThanOrEqual(rotations);
  expect(await target.stop()).toBe(0);
});
