// A guest of Linux under QEMU 11 whose back-ends are killed: eight writers of fio, each write with its number, each read verified.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { TestGuest } from '../peers/migration-guest.js';
import { qemu } from '../vm/qemu.js';
import { connectUnix } from '../vm/qmp.js';
import { Background } from './background.js';
import { fioGuest, fioPrologue } from './fio-guest.js';

const WRITERS = 8;
const SIZE = 64 << 20;
const DISKS = [
  { name: 'split', dev: 'vda' },
  { name: 'packed', dev: 'vdb' },
] as const;

/** Both disks at once: four writers each, numbered by fio (verify_write_sequence), until a line comes. */
const init = `${fioPrologue}
cut -c35 /sys/block/vda/device/features /sys/block/vdb/device/features | tr -d '\\n'; echo " PACKED"
n=0
while [ ! -e /stop ]; do
  for d in vda vdb; do
    fio --name=$d --thread --filename=/dev/$d --numjobs=${WRITERS / 2} --offset_increment=16M --size=2M --rw=randwrite --bsrange=512-16k \\
      --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --verify_backlog=32 --randseed=1$n --output=/tmp/$d || touch /bad-$d &
  done
  wait %1 %2
  for d in vda vdb; do [ -e /bad-$d ] && { echo "FIO FAILED"; cat /tmp/$d; touch /stop; }; done
  n=$((n + 1)); echo "ROUND $n"
done &
read line
touch /stop
wait
sync
for d in vda vdb; do echo "SUM $d $(sha256sum </dev/$d | cut -c1-64)"; done
dmesg -r | grep '^<[0-4]>' | grep -i 'virtio\\|vd[ab]\\|blk' && echo "KERNEL FAILED"
echo ALL ENDED
sleep 99999
`;

export interface GuestKills {
  /** Ends of a back-end, by SIGKILL and SIGTERM. */
  kills: number;
  /** Of fio: each writes and verifies everything. */
  rounds: number;
}

/** @throws when a write was lost or repeated to the guest, when data are wrong, or when the guest waits for an answer for ever */
export async function killGuest(options: { dir: string; kills: number; random: () => number }): Promise<GuestKills> {
  const { dir, kills, random } = options;
  const at = (name: string): string => path.join(dir, name);
  const servers: Background[] = [];
  const serve = async (which: number): Promise<void> => {
    const { name } = DISKS[which]!;
    servers[which] = Background.vioctl(['vhost-user', 'serve', 'blk', `${at(`${name}.sock`)}=${at(name)}`, '--queues', '2']);
    await servers[which].sees(/^serving /m);
  };
  for (const { name } of DISKS) fs.writeFileSync(at(name), Buffer.alloc(SIZE));
  let guest: TestGuest | undefined;
  let said = '';
  const says = async (pattern: RegExp, seconds: number): Promise<void> => {
    for (const end = Date.now() + seconds * 1000; !pattern.test(said); await new Promise((resolve) => setTimeout(resolve, 100)))
      if (/FAILED|NO DISK|panic|I\/O error/.test(said) || Date.now() > end)
        throw new Error(`${pattern} was not seen:\n${said.slice(-3000)}`);
  };
  try {
    await serve(0);
    await serve(1);
    const devices = DISKS.flatMap(({ name }) => [
      ...['-chardev', `socket,id=${name},path=${at(`${name}.sock`)},reconnect-ms=50`],
      ...['-device', `vhost-user-blk-pci,chardev=${name},num-queues=2${name === 'packed' ? ',packed=on' : ''}`],
    ]);
    guest = await TestGuest.start(await qemu('11'), dir, [
      ...['-M', 'q35,memory-backend=ram', '-cpu', 'qemu64', '-smp', '2', '-m', '512'],
      ...['-object', 'memory-backend-memfd,id=ram,size=512M,share=on'],
      ...['-chardev', `socket,id=serial,path=${at('serial')},server=on,wait=off`, '-serial', 'chardev:serial', ...devices],
      ...(await fioGuest(dir, init)),
    ]);
    const console = await connectUnix(at('serial'), 30);
    console.on('data', (bytes: Buffer) => {
      said += bytes.toString('latin1');
    });
    console.on('error', () => {});
    await guest.qmp.run('cont');
    await says(/^01 PACKED/m, 120);
    for (let i = 0; i < kills; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20 + random() * 600));
      const which = i % 2;
      const term = random() < 0.4;
      const status = await servers[which]!.stop(term ? 'SIGTERM' : 'SIGKILL');
      if (term && status !== 0) throw new Error(`SIGTERM: status ${status}: ${servers[which]!.stderr}`);
      await serve(which);
      if (/FAILED|I\/O error/.test(said)) break;
    }
    console.write('\n');
    await says(/ALL ENDED/, 180);
    for (const { name, dev } of DISKS) {
      const sum = createHash('sha256')
        .update(fs.readFileSync(at(name)))
        .digest('hex');
      if (!said.includes(`SUM ${dev} ${sum}`))
        throw new Error(`${name}: the guest reads something else than the file has:\n${said.slice(-500)}`);
    }
    console.destroy();
    return { kills, rounds: Number([...said.matchAll(/ROUND (\d+)/g)].at(-1)?.[1] ?? 0) };
  } finally {
    await guest?.stop();
    for (const server of servers) await server?.stop();
  }
}
