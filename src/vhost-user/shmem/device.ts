import fs from 'node:fs';
import { JsRing } from '../backend/js-ring.js';
import type { DeviceModel } from '../backend/model.js';
import { deviceByName } from '../wire/devices.js';
import { protocolMask, VirtioF } from '../wire/features.js';
import type { ShmemServer } from './server.js';

const base = VirtioF.version1 | VirtioF.indirect | VirtioF.eventIdx;

/** @param slots offer CONFIGURE_MEM_SLOTS: needed for more than six mappings */
const protocolOf = (slots: boolean): bigint =>
  protocolMask('MQ', 'REPLY_ACK', 'BACKEND_REQ', 'BACKEND_SEND_FD', 'CONFIG', 'RESET_DEVICE', 'SHMEM') |
  (slots ? protocolMask('CONFIGURE_MEM_SLOTS') : 0n);

/** A device that is nothing but its regions: requests on its queues are completed with nothing written. */
export function windowDevice(server: ShmemServer, options: { queues: number; slots: boolean; configSize: number }): DeviceModel {
  return {
    name: 'window',
    features: base,
    protocol: protocolOf(options.slots),
    queues: options.queues,
    regions: server.regions,
    config: () => new Uint8Array(options.configSize),
    startRing: (start) => new JsRing(start, () => new Uint8Array(0)),
  };
}

/** Requests and answers of virtio-pmem (virtio 1.3, 5.19.6). */
const PMEM_FLUSH = 0;
const PMEM_OK = 0;
const PMEM_EIO = 0xffffffff;

/** The virtio-pmem device over region 0: the guest's flush is an fdatasync of every file that is mapped there. */
export function pmemDevice(server: ShmemServer, options: { slots: boolean; onFlush?: () => void }): DeviceModel {
  const config = deviceByName('pmem')!.config!;
  const sync = (fd: number): Promise<void> => new Promise((resolve, reject) => fs.fdatasync(fd, (err) => (err ? reject(err) : resolve())));
  const flush = async (): Promise<number> => {
    const files = server.entries.filter((e) => e.shmid === 0 && e.how === 'shared');
    const results = await Promise.allSettled(files.map((e) => sync(e.fd.fd)));
    options.onFlush?.();
    return results.every((r) => r.status === 'fulfilled') ? PMEM_OK : PMEM_EIO;
  };
  return {
    name: 'pmem',
    features: base | 1n, // VIRTIO_PMEM_F_SHMEM_REGION
    protocol: protocolOf(options.slots),
    queues: 1,
    regions: server.regions,
    config: () => config.encode({ start: 0n, size: server.regions.get(0) ?? 0n } as never),
    startRing: (start) =>
      new JsRing(start, async ({ out }) => {
        const answer = Buffer.alloc(4);
        const known = out.length >= 4 && out.readUInt32LE(0) === PMEM_FLUSH;
        answer.writeUInt32LE(known ? await flush() : PMEM_EIO);
        return answer;
      }),
  };
}
