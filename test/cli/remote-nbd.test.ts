/** Exports of NBD servers, and qcow2 images, behind both servers: data, flushes, discards, and a far side that is killed. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { vioctl } from '../support/cli.js';
import { NbdServer } from '../support/nbd-server.js';
import { daemonsOf } from '../support/qcow2-daemons.js';
import { NvmeDisk, type Outcome, RingDisk, type ServedDisk } from '../support/served-disk.js';
import { skip, which } from '../support/skip.js';
import { at, both, image, lastSocket, refused, type Server, serve } from '../support/storage-servers.js';

const SIZE = 16 << 20;
const AREA = 8 << 20; // that the load writes; discards lie behind it
const LANES = 8;

/** A far side: the source, the bytes that it has at the end, and its end and new start. */
interface Far {
  source: string;
  bytes(): Buffer;
  kill(): Promise<void>;
  end(): Promise<void>;
}
const file = (): string => at('far.img');
const fars: Record<string, { needs: string[]; open(): Promise<Far> }> = {
  nbdkit: {
    needs: ['nbdkit'],
    open: async () => {
      image('far.img', SIZE);
      const server = await NbdServer.start(at('nbd'), (socket) => ['nbdkit', '-f', '-U', socket, 'file', file()]);
      return { source: server.uri, bytes: () => fs.readFileSync(file()), kill: () => server.restart(), end: () => server.stop() };
    },
  },
  'nbdkit over TLS': {
    needs: ['nbdkit'],
    open: async () => {
      image('far.img', SIZE);
      fs.writeFileSync(at('psk'), `user:${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
      const argv = (socket: string): string[] => ['nbdkit', '-f', '-U', socket, '--tls=require', `--tls-psk=${at('psk')}`, 'file', file()];
      const server = await NbdServer.start(at('nbd'), argv);
      const source = `${server.uri.replace('nbd+unix://', 'nbds+unix://user@')}&tls-psk-file=${at('psk')}`;
      return { source, bytes: () => fs.readFileSync(file()), kill: () => server.restart(), end: () => server.stop() };
    },
  },
  'qemu-nbd': {
    needs: ['qemu-nbd'],
    open: async () => {
      image('far.img', SIZE);
      const args = ['--shared=8', '--discard=unmap', '--detect-zeroes=off'];
      const server = await NbdServer.start(at('nbd'), (socket) => ['qemu-nbd', '-f', 'raw', '-t', '-k', socket, ...args, file()]);
      return { source: server.uri, bytes: () => fs.readFileSync(file()), kill: () => server.restart(), end: () => server.stop() };
    },
  },
  qcow2: {
    needs: ['qemu-img', 'qemu-storage-daemon', 'setpriv', 'unshare'],
    open: async () => {
      spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', file(), `${SIZE}`]);
      return {
        source: `qcow2:${file()}`,
        bytes: () => {
          // 3: clusters are taken that nothing uses, as after any end without warning; no data is wrong
          expect([0, 3]).toContain(spawnSync('qemu-img', ['check', '-q', file()]).status);
          expect(spawnSync('qemu-img', ['convert', '-O', 'raw', file(), at('raw')]).status).toBe(0);
          return fs.readFileSync(at('raw'));
        },
        kill: async () => {
          for (const pid of daemonsOf(file())) process.kill(pid, 'SIGKILL');
        },
        end: async () => {},
      };
    },
  },
};

/** A disk on a server of the source. */
async function served(kind: Server, source: string) {
  const server = await serve(kind, source, ...(kind === 'nvmf' ? ['--control', at('ctl'), '--discovery-port', 'none'] : []));
  let disk: ServedDisk;
  if (kind === 'nvmf') {
    const { listen, subsystems } = JSON.parse(vioctl(['nvmf', 'ctl', at('ctl'), 'list', '--json']).stdout);
    disk = await NvmeDisk.open(listen[0].port, subsystems[0].nqn);
  } else disk = await RingDisk.open(lastSocket());
  return { server, disk };
}

/** Writes, reads back and zeroes in lanes of their own until `over` says so. @returns what became of the requests */
function load(disk: ServedDisk, model: Buffer, over: () => boolean): { done: () => number; ended: Promise<Set<Outcome>> } {
  const outcomes = new Set<Outcome>();
  let done = 0;
  const lane = async (n: number): Promise<void> => {
    const part = AREA / LANES;
    while (!over()) {
      const size = 4096 * (1 + Math.floor(Math.random() * 16));
      const from = n * part + 4096 * Math.floor(Math.random() * ((part - size) / 4096));
      const data = Math.random() < 0.2 ? Buffer.alloc(size) : randomBytes(size);
      if (data[0] === 0 && data.equals(Buffer.alloc(size))) outcomes.add(await disk.zero(from, size));
      else outcomes.add(await disk.write(from, data, Math.random() < 0.1));
      data.copy(model, from);
      if (Math.random() < 0.1) outcomes.add(await disk.flush());
      const back = Buffer.alloc(size);
      outcomes.add(await disk.read(from, back));
      if (!back.equals(data)) throw new Error(`wrong data at ${from}`);
      done++;
    }
  };
  const ended = Promise.all(Array.from({ length: LANES }, (_, n) => lane(n))).then(() => outcomes);
  return { done: () => done, ended };
}

describe.each(both)('%s', (kind) => {
  test.each(Object.keys(fars))('%s is killed: a write that was durable at once stays newer than one before it', async (name) => {
    const { needs, open } = fars[name]!;
    const missing = needs.find((program) => which(program) === undefined);
    if (missing) return skip(`${name} behind ${kind}`, `needs ${missing}`);
    const far = await open();
    try {
      const { server, disk } = await served(kind, far.source);
      const [old, young] = [Buffer.alloc(64 << 10, 1), Buffer.alloc(4096, 2)];
      expect(await disk.write(0, old)).toBe('ok');
      expect(await disk.write(8192, young, true)).toBe('ok');
      await far.kill();
      const back = Buffer.alloc(old.length);
      expect(await disk.read(0, back)).toBe('ok');
      young.copy(old, 8192);
      expect(back.equals(old)).toBe(true);
      disk.close();
      expect(await server.stop()).toBe(0);
      expect(far.bytes().subarray(0, old.length).equals(old)).toBe(true);
    } finally {
      await far.end();
    }
  });

  test.each(Object.keys(fars))(
    '%s is killed and started again under load: a pause, no error, all data right, discards done',
    async (name) => {
      const { needs, open } = fars[name]!;
      const missing = needs.find((program) => which(program) === undefined);
      if (missing) return skip(`${name} behind ${kind}`, `needs ${missing}`);
      const far = await open();
      try {
        const { server, disk } = await served(kind, far.source);
        const model = Buffer.alloc(SIZE);
        let over = false;
        const running = load(disk, model, () => over);
        for (let kills = 0; kills < 3; kills++) {
          await works(running);
          await far.kill();
        }
        await works(running);
        over = true;
        expect([...(await running.ended)]).toEqual(['ok']);
        // what is discarded takes no space any more
        const piece = 128 << 10;
        for (let from = AREA; from < AREA + (4 << 20); from += piece) expect(await disk.write(from, Buffer.alloc(piece, 0xdd))).toBe('ok');
        expect(await disk.flush()).toBe('ok');
        const blocks = fs.statSync(file()).blocks;
        expect(await disk.discard(AREA, 4 << 20)).toBe('ok');
        expect(await disk.flush()).toBe('ok');
        expect(fs.statSync(file()).blocks).toBeLessThan(blocks - (3 << 20) / 512);
        disk.close();
        expect(await server.stop()).toBe(0);
        expect(far.bytes().subarray(0, AREA).equals(model.subarray(0, AREA))).toBe(true);
      } finally {
        await far.end();
      }
    },
  );
});

describe.each(both)('%s: zeroes without data', (kind) => {
  test.each(['a file', 'nbdkit'])('%s: leave holes as they are, and the space of data', async (name) => {
    if (name !== 'a file' && which('nbdkit') === undefined) return skip(`zeroes over ${name} behind ${kind}`, 'needs nbdkit');
    const far = name === 'a file' ? undefined : await fars[name]!.open();
    const [MiB, piece] = [1 << 20, 64 << 10];
    image('far.img', SIZE);
    const fd = fs.openSync(file(), 'r+');
    // three pieces of data, a MiB apart, of which the zeroes take the middle one, and of a file also a half of the last one
    for (const place of [1, 2, 3]) fs.writeSync(fd, Buffer.alloc(piece, place), 0, piece, place * MiB);
    const allocated = (): number => {
      fs.fsyncSync(fd);
      return fs.fstatSync(fd).blocks * 512;
    };
    try {
      const before = allocated();
      const { server, disk } = await served(kind, far?.source ?? file());
      // an NBD server is asked whether all of it is a hole, not where the data lies
      if (far) expect(await disk.zero(2 * MiB, piece, false)).toBe('ok');
      else expect(await disk.zero(MiB + piece, 2 * MiB - piece / 2, false)).toBe('ok');
      expect(await disk.zero(8 * MiB, MiB, false)).toBe('ok');
      expect(await disk.flush()).toBe('ok');
      disk.close();
      if (before < SIZE) expect(allocated()).toBe(before);
      else skip(`zeroes over ${name} behind ${kind}`, 'the file system of the tests has no sparse files');
      expect(await server.stop()).toBe(0);
      const model = Buffer.alloc(SIZE);
      model.fill(1, MiB, MiB + piece);
      model.fill(3, 3 * MiB + (far ? 0 : piece / 2), 3 * MiB + piece);
      expect(fs.readFileSync(file()).equals(model)).toBe(true);
    } finally {
      fs.closeSync(fd);
      await far?.end();
    }
  });
});

/** Waits for work of a load that runs, or for its end. */
async function works(running: ReturnType<typeof load>): Promise<void> {
  const before = running.done();
  for (let tries = 0; running.done() < before + 30 && tries < 500; tries++) await Promise.race([sleep(20), running.ended]);
  expect(running.done()).toBeGreaterThanOrEqual(before + 30);
}

describe.each(both)('%s: a size that changes', (kind) => {
  test.each(['nbdkit', 'nbdkit over TLS'])('%s: is seen by itself, beside a load that notices nothing', async (name) => {
    const { needs, open } = fars[name]!;
    if (which(...needs) === undefined) return skip(`${name}: sizes behind ${kind}`, 'needs nbdkit');
    const far = await open();
    try {
      const { server, disk } = await served(kind, far.source);
      const model = Buffer.alloc(AREA);
      let over = false;
      const running = load(disk, model, () => over);
      const [beyond, data, back] = [SIZE + 4096, Buffer.alloc(4096, 7), Buffer.alloc(4096)];
      await works(running);
      expect(await disk.write(beyond, data)).toMatch(/^error/);
      fs.truncateSync(file(), SIZE + (8 << 20));
      await server.sees(new RegExp(`has ${SIZE + (8 << 20)} bytes now`));
      expect(await disk.write(beyond, data)).toBe('ok');
      await works(running);
      expect(await disk.read(beyond, back)).toBe('ok');
      expect(back.equals(data)).toBe(true);
      fs.truncateSync(file(), SIZE - 4096);
      await server.sees(new RegExp(`has ${SIZE - 4096} bytes now`));
      expect(await disk.read(beyond, back)).toMatch(/^error/);
      await works(running);
      over = true;
      expect([...(await running.ended)]).toEqual(['ok']);
      expect(await disk.flush()).toBe('ok');
      expect(server.stderr).not.toMatch(/lost|connected again|no answer/);
      disk.close();
      expect(await server.stop()).toBe(0);
      expect(far.bytes().subarray(0, AREA).equals(model)).toBe(true);
    } finally {
      await far.end();
    }
  });

  test('is seen at a new connection where the server takes one client at a time', async () => {
    if (which('nbdkit') === undefined) return skip(`NBD: one client at a time behind ${kind}`, 'needs nbdkit');
    image('far.img', SIZE);
    const far = await NbdServer.start(at('nbd'), (socket) => ['nbdkit', '-f', '-U', socket, '--filter=limit', 'file', file(), 'limit=1']);
    try {
      const { server, disk } = await served(kind, far.uri);
      const data = Buffer.alloc(4096, 7);
      expect(await disk.write(0, data)).toBe('ok');
      fs.truncateSync(file(), 2 * SIZE);
      await sleep(2500); // it is asked, and refuses
      expect(await disk.write(4096, data)).toBe('ok');
      expect(server.stderr).not.toMatch(/lost|bytes now/);
      await far.restart();
      await server.sees(new RegExp(`has ${2 * SIZE} bytes now`));
      expect(await disk.write(SIZE, data)).toBe('ok');
      disk.close();
      expect(await server.stop()).toBe(0);
    } finally {
      await far.stop();
    }
  });
});

test.each(both)('%s: a server of TLS takes neither a wrong key nor none', async (kind) => {
  const { needs, open } = fars['nbdkit over TLS']!;
  if (which(...needs) === undefined) return skip(`NBD over TLS behind ${kind}`, 'needs nbdkit');
  const far = await open();
  try {
    fs.writeFileSync(at('other'), `user:${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
    const psk = (name: string): string => far.source.replace(/tls-psk-file=.*/, `tls-psk-file=${at(name)}`);
    expect(refused(kind, psk('other')).status).toBe(1);
    expect(refused(kind, psk('none')).status).toBe(1);
    const plain = far.source.replace('nbds+unix://user@', 'nbd+unix://').replace(/&tls-psk-file=.*/, '');
    expect(refused(kind, plain)).toMatchObject({ status: 7, stderr: expect.stringContaining('nbds+unix://') });
  } finally {
    await far.end();
  }
});
