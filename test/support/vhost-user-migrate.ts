// A guest of Linux under fio verify that moves from QEMU to QEMU, and its disk from `serve blk` to `serve blk` on one image.
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import type { Socket } from 'node:net';
import path from 'node:path';
import { TestGuest } from '../peers/migration-guest.js';
import type { QemuBuild } from '../vm/qemu.js';
import { connectUnix } from '../vm/qmp.js';
import { Background } from './background.js';
import { fioGuest, fioPrologue } from './fio-guest.js';
import { eventually } from './wait.js';

export interface MigrateOptions {
  dir: string;
  /** Where the guest runs, one after the other and over again; it starts in the first. */
  builds: readonly QemuBuild[];
  /** Migrations. */
  hops: number;
  packed: boolean;
  engine: 'uring' | 'sync';
}

const [MEMORY, QUEUES] = [512 << 20, 2];
/** What fio writes, and what is read alone: bytes that differ from page to page. */
const [WRITTEN, READ] = [48 << 20, 64 << 20];
/** Firmware and its shadow differ between builds. */
const RAM_START = 1 << 20;
/** Milliseconds. */
const SLOW_PART = 3000;
/** Both builds know it. */
const MACHINE = 'pc-q35-10.0';

/**
 * Two fio jobs write and verify halves of the disk, one of them through the page cache; a third program reads the disk over and over into
 * pages that nobody but the device writes. A line on the console ends it all.
 */
const init = `${fioPrologue}
echo "PACKED $(cut -c35 /sys/block/vda/device/features)"
verify() {
  n=0
  while [ ! -e /stop ]; do
    fio --name=$1 --thread --filename=/dev/vda --size=24M --rw=randwrite --bsrange=4k-64k --iodepth=8 --verify=crc32c --verify_fatal=1 \\
      --verify_backlog=64 --randseed=$1$n --output=/tmp/$1 $2 || { echo "FIO $1 FAILED"; cat /tmp/$1; break; }
    n=$((n + 1)); echo "FIO $1 ROUND $n"
  done
  echo "FIO $1 ENDED AFTER $n"
}
verify 1 "--offset=0 --direct=1 --ioengine=libaio" &
verify 2 "--offset=24M --direct=0 --ioengine=psync --invalidate=1" &
while [ ! -e /stop ]; do
  dd if=/dev/vda of=/dev/null bs=1M skip=${WRITTEN >> 20} 2>/dev/null; echo 1 >/proc/sys/vm/drop_caches
done &
read line
touch /stop
wait
sync
echo ALL ENDED
sleep 99999
`;

/** One place where the guest runs: a server, a QEMU and what it has said there. */
class Place {
  #server!: Background;
  #guest!: TestGuest;
  #console!: Socket;
  /** What the guest has said here. */
  said = '';
  readonly #dir: string;

  private constructor(dir: string) {
    this.#dir = dir;
  }

  get guest(): TestGuest {
    return this.#guest;
  }

  static async open(dir: string, build: QemuBuild, options: MigrateOptions, boot: readonly string[], incoming: boolean): Promise<Place> {
    fs.mkdirSync(dir);
    const place = new Place(dir);
    const [socket, serial] = [path.join(dir, 'disk'), path.join(dir, 'serial')];
    const wanted = `${socket}=${path.join(options.dir, 'img')}`;
    const flags = ['--queues', `${QUEUES}`, '--engine', options.engine, ...(incoming ? ['--incoming'] : [])];
    place.#server = Background.vioctl(['vhost-user', 'serve', 'blk', wanted, ...flags]);
    try {
      await place.#server.sees(/^serving /m);
      const device = `vhost-user-blk-pci,chardev=disk,num-queues=${QUEUES}${options.packed ? ',packed=on' : ''}`;
      place.#guest = await TestGuest.start(build, dir, [
        ...['-M', `${MACHINE},memory-backend=ram`, '-cpu', 'qemu64', '-smp', '2', '-m', `${MEMORY >> 20}`],
        ...['-object', `memory-backend-memfd,id=ram,size=${MEMORY >> 20}M,share=on`],
        ...['-chardev', `socket,id=serial,path=${serial},server=on,wait=off`, '-serial', 'chardev:serial'],
        ...['-chardev', `socket,id=disk,path=${socket}`, '-device', device],
        ...boot,
        ...(incoming ? ['-incoming', 'defer'] : []),
      ]);
      place.#console = await connectUnix(serial, 30);
      place.#console.on('data', (bytes: Buffer) => {
        place.said += bytes.toString('latin1');
      });
      place.#console.on('error', () => {});
    } catch (err) {
      await place.close();
      throw err;
    }
    return place;
  }

  type(text: string): void {
    this.#console.write(text);
  }

  /** Waits until the guest has said so here. @throws when it says that something is wrong, or nothing for `seconds` */
  async says(pattern: RegExp, seconds: number): Promise<void> {
    for (const end = Date.now() + seconds * 1000; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
      if (/FAILED|NO DISK|panic|I\/O error|verify:/.test(this.said) || Date.now() > end)
        throw new Error(`${pattern} was not seen:\n${this.said.slice(-3000)}\n${this.#server.stderr}`);
      if (pattern.test(this.said)) return;
    }
  }

  /** Ends QEMU, then the server, which must have been right. */
  async end(): Promise<void> {
    this.#console.destroy();
    await this.#guest.stop();
    const status = await this.#server.stop();
    if (status !== 0 || !/[1-9]\d* reads, [1-9]\d* writes, .* 0 errors/.test(this.#server.stderr))
      throw new Error(`a server ended with ${status}:\n${this.#server.stderr}`);
    fs.rmSync(this.#dir, { recursive: true });
  }

  async close(): Promise<void> {
    this.#console?.destroy();
    await this.#guest?.stop();
    await this.#server.stop('SIGKILL');
  }
}

/**
 * Migrates and compares: what the devices and processors of the source have written, the destination must have before it runs. A page
 * that a device wrote without marking it in the dirty log differs.
 */
async function hop(from: Place, to: Place, dir: string): Promise<void> {
  const stream = path.join(dir, 'stream');
  const uri = `unix:${stream}`;
  fs.rmSync(stream, { force: true });
  const loaded = to.guest.load(uri);
  loaded.catch(() => {});
  await eventually(() => fs.existsSync(stream));
  // Slow at first: pages that have been sent must be written again.
  const limits = { 'max-bandwidth': 48 << 20, 'downtime-limit': 300 };
  const meanwhile = async (): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, SLOW_PART));
    await from.guest.qmp.run('migrate-set-parameters', { 'max-bandwidth': 2 ** 33, 'downtime-limit': 1000 });
  };
  await from.guest.migrate({ uri, parameters: limits, meanwhile });
  await loaded;
  const memory = (place: Place): Promise<string> => place.guest.memoryHash(dir, RAM_START, MEMORY - RAM_START);
  const [before, after] = [await memory(from), await memory(to)];
  if (before !== after) throw new Error('the memory at the destination is not that of the source');
  await to.guest.qmp.run('cont');
}

/** Both jobs of fio have ended a round. */
const bothVerified = /FIO 1 ROUND[\s\S]*FIO 2 ROUND|FIO 2 ROUND[\s\S]*FIO 1 ROUND/;

export interface MigrateResult {
  /** Rounds of fio, each written and verified, that ended in the last place. */
  rounds: number;
  hops: number;
}

/**
 * @throws when a page was lost, when fio found wrong data, when an error reached the guest or a server
 */
export async function migrateGuest(options: MigrateOptions): Promise<MigrateResult> {
  const { dir, builds, hops } = options;
  const boot = await fioGuest(dir, init);
  fs.writeFileSync(path.join(dir, 'img'), Buffer.concat([Buffer.alloc(WRITTEN), randomBytes(READ)]));
  const places: Place[] = [];
  const open = async (n: number): Promise<Place> => {
    const place = await Place.open(path.join(dir, `place-${n}`), builds[n % builds.length]!, options, boot, n > 0);
    places.push(place);
    return place;
  };
  try {
    let here = await open(0);
    await here.guest.qmp.run('cont');
    await here.says(new RegExp(`PACKED ${options.packed ? 1 : 0}`), 120);
    for (let n = 1; n <= hops; n++) {
      await here.says(bothVerified, 180);
      const next = await open(n);
      await hop(here, next, dir);
      await here.end();
      places.shift();
      here = next;
    }
    await here.says(bothVerified, 180);
    here.type('\n');
    await here.says(/ALL ENDED/, 180);
    const rounds = [...here.said.matchAll(/FIO \d ENDED AFTER (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
    await here.end();
    places.shift();
    return { rounds, hops };
  } finally {
    for (const place of places) await place.close();
  }
}
