/**
 * The state that the class of a virtio device saves between the queues and the common subsections, by the type of the device
 * (QEMU hw/net/virtio-net.c, hw/block/virtio-blk.c, hw/char/virtio-serial-bus.c, hw/virtio/virtio-balloon.c, virtio-mem.c).
 * It carries no lengths: each reader must end exactly at its end, or the bytes are shown as they are.
 */
import type { Fields, Value } from '../stream/model.js';
import { BadForm, bitRuns, Cursor, hex, trimZeros } from './cursor.js';

/** What a reader knows of the device's common state. */
export interface VirtioCommon {
  /** features that the guest accepted */
  features: bigint;
  queues: number;
}

type Reader = (c: Cursor, common: VirtioCommon) => Fields;

/** A subsection of the class, if its name is next. */
function subsection(c: Cursor, name: string): boolean {
  const header = 2 + name.length + 4;
  if (c.left < header || c.bytes[c.at] !== 0x05 || c.bytes[c.at + 1] !== name.length) return false;
  if (c.bytes.toString('latin1', c.at + 2, c.at + 2 + name.length) !== name) return false;
  c.at += header;
  return true;
}

const mac = (bytes: Buffer): string => (bytes.toString('hex').match(/../g) ?? []).join(':');

/** VLAN ids that pass, `0-4095` for all: words of 32 bits in the order of the host that saved, taken as little-endian. */
const vlans = (bytes: Buffer): string => bitRuns(bytes.length, (i) => bytes[i]!) ?? '';

const vlanBytes = 4096 / 8;
const CTRL_GUEST_OFFLOADS = 1n << 2n;
const NET_MQ = 1n << 22n;
const RSS = 'virtio-net-device/rss';

function rss(c: Cursor): Fields {
  const state: Fields = { enabled: c.bool(), redirect: c.bool(), populateHash: c.bool(), hashTypes: hex(c.be32(), 8) };
  const entries = c.be16();
  state.defaultQueue = c.be16();
  state.key = Buffer.from(c.take(40));
  state.table = Array.from({ length: entries }, () => c.be16());
  return state;
}

/** @param multiqueue the device was made with more than one pair of queues, whether the guest uses them or not */
const net =
  (multiqueue: boolean): Reader =>
  (c, { features }) => {
    const state: Fields = { mac: mac(c.take(6)), txWaiting: [c.be32()], mergeableRxBuffers: c.be32() !== 0, status: hex(c.be16(), 4) };
    state.promiscuous = c.bool();
    state.allMulticast = c.bool();
    const addresses = c.be32();
    state.macTable = Array.from({ length: Math.min(addresses, c.left / 6) }, () => mac(c.take(6)));
    state.vlans = vlans(c.take(vlanBytes));
    state.vnetHeader = c.be32() !== 0;
    for (const name of ['multicastOverflow', 'unicastOverflow', 'allUnicast', 'noMulticast', 'noUnicast', 'noBroadcast', 'ufo'])
      state[name] = c.bool();
    if (multiqueue) {
      state.maxQueuePairs = c.be16();
      const pairs = c.be16();
      if (pairs === 0 || pairs > (state.maxQueuePairs as number)) throw new BadForm('pairs of queues');
      state.queuePairs = pairs;
      for (let i = 1; i < pairs; i++) (state.txWaiting as Value[]).push(c.be32());
    }
    if ((features & CTRL_GUEST_OFFLOADS) !== 0n) state.guestOffloads = c.be64();
    if (subsection(c, RSS)) state.rss = rss(c);
    return state;
  };

/** A request that waits: its queue element is a structure of the host, of this size on hosts with 64-bit addresses. */
const elementSize = 16 + 2 * 1024 * 8 + 2 * 1024 * 16;
const RING_PACKED = 1n << 34n;

/** Passes one queue element. */
function element(c: Cursor, { features }: VirtioCommon): Fields {
  const head = c.take(elementSize);
  const descriptors = (features & RING_PACKED) !== 0n ? { descriptors: c.be32() } : {};
  return { head: head.readUInt32LE(0), out: head.readUInt32LE(4), in: head.readUInt32LE(8), ...descriptors };
}

/** Requests that wait for the device to go on, each behind a 1; then a 0. */
const blk: Reader = (c, common) => {
  const waiting: Fields[] = [];
  for (let mark = c.u8(); mark !== 0; mark = c.u8()) {
    if (mark !== 1) throw new BadForm('mark of a request');
    waiting.push({ ...(common.queues > 1 && { queue: c.be32() }), ...element(c, common) });
  }
  return { waitingRequests: waiting };
};

const serial: Reader = (c, common) => {
  const state: Fields = { columns: c.be16(), rows: c.be16() };
  const most = c.be32();
  state.maxPorts = most;
  const words = Math.ceil(most / 32);
  if (words * 4 > c.left) throw new BadForm('map of the ports');
  const map = Array.from({ length: words }, () => c.be32());
  state.portsInUse = map.flatMap((word, i) =>
    Array.from({ length: 32 }, (_, bit) => (word & (1 << bit) ? i * 32 + bit : -1)).filter((n) => n >= 0),
  );
  const active = c.be32();
  if (active > most) throw new BadForm('active ports');
  state.ports = Array.from({ length: active }, () => {
    const port: Fields = { id: c.be32(), guestConnected: c.bool(), hostConnected: c.bool() };
    if (c.be32() === 0) return port;
    return { ...port, vector: c.be32(), vectorOffset: c.be64(), ...element(c, common) };
  });
  return state;
};

const balloonName = 'virtio-balloon-device';

const balloon: Reader = (c) => {
  const state: Fields = { pages: c.be32(), actual: c.be32() };
  if (subsection(c, `${balloonName}/free-page-report`)) state.freePageHint = { commandId: c.be32(), status: c.be32() };
  if (subsection(c, `${balloonName}/page-poison`)) state.pagePoison = hex(c.be32(), 8);
  return state;
};

/** Machine types from 8.0 on send the sizes and the bitmap in a section in front of the RAM. */
const mem: Reader = (c) => {
  if (c.left === 16) return { usableRegionSize: c.be64(), requestedSize: c.be64() };
  const state: Fields = { address: c.be64(), regionSize: c.be64(), blockSize: c.be64(), node: c.be32() };
  for (const name of ['usableRegionSize', 'size', 'requestedSize']) state[name] = c.be64();
  const blocks = (state.regionSize as bigint) / ((state.blockSize as bigint) || 1n);
  const bytes = Number((blocks + 63n) / 64n) * 8;
  state.plugged = trimZeros(c.take(bytes));
  return state;
};

/** Readers by the name of the device's state; several where its properties decide, which are not in the stream. */
const readers: Record<string, readonly Reader[]> = {
  'virtio-net': [net(false), net(true)],
  'virtio-blk': [blk],
  'virtio-console': [serial],
  'virtio-balloon': [balloon],
  'virtio-mem': [mem],
};

/** The class state by its parts; undefined where the type is not known, has none, or its bytes have another form. */
export function virtioClass(device: string, bytes: Buffer, common: VirtioCommon): Fields | undefined {
  const forms = readers[device] ?? [];
  // A guest that uses several pairs of queues has a device with several.
  const order = (common.features & NET_MQ) !== 0n ? [...forms].reverse() : forms;
  for (const read of order) {
    const c = new Cursor(bytes);
    try {
      const state = read(c, common);
      if (c.left === 0) return state;
    } catch (err) {
      if (!(err instanceof BadForm) && !(err instanceof RangeError)) throw err;
    }
  }
  return undefined;
}
