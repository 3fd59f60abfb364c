/** The `virtio` field: bus state, common state, queues, class state, subsections (QEMU hw/virtio/virtio.c, virtio-pci.c, virtio-mmio.c). */
import type { Value } from '../stream/model.js';
import { BadForm, badForm, Cursor, nonzero, trimZeros } from './cursor.js';
import { irqState, msix, msixEntries, pciConfig } from './pci.js';
import { virtioClass } from './virtio-class.js';

const maxQueues = 1024;

/** Device status bits (VIRTIO 1.2, 2.1). */
const statusBits: [number, string][] = [
  [1, 'ACKNOWLEDGE'],
  [2, 'DRIVER'],
  [4, 'DRIVER_OK'],
  [8, 'FEATURES_OK'],
  [64, 'DEVICE_NEEDS_RESET'],
  [128, 'FAILED'],
];

/** A subsection: 05, name, version. */
function subsection(c: Cursor): string {
  if (c.u8() !== 0x05) throw new BadForm('no subsection');
  const name = c.take(c.u8()).toString('latin1');
  c.be32();
  return name;
}

/** True if a subsection whose name begins with `prefix` is next. */
function isSubsection(c: Cursor, prefix: string): boolean {
  const at = c.at;
  return (
    c.left > 2 + prefix.length && c.bytes[at] === 0x05 && c.bytes.subarray(at + 2, at + 2 + prefix.length).toString('latin1') === prefix
  );
}

/** Where the next subsection begins whose name begins with `prefix`; the end where there is none. */
function nextSubsection(c: Cursor, prefix: string): number {
  for (let name = c.at + 2; ; name += 1) {
    name = c.bytes.indexOf(prefix, name, 'latin1');
    if (name < 0) return c.bytes.length;
    if (c.bytes[name - 2] === 0x05) return name - 2;
  }
}

/** A table of one entry of `size` bytes per queue; entries that are all zero, or that `idle` says are unused, are left out. */
function perQueue<T extends { [name: string]: Value }>(
  c: Cursor,
  size: number,
  read: (c: Cursor) => T,
  idle: (entry: T) => boolean = () => false,
): Value[] {
  const table = new Cursor(c.take(size * maxQueues));
  const used: Value[] = [];
  for (const queue of nonzero(table.bytes, 0, size, maxQueues)) {
    table.at = queue * size;
    const entry = read(table);
    if (!idle(entry)) used.push({ queue, ...entry });
  }
  return used;
}

const words = (c: Cursor): Value => {
  const low = c.be32();
  return (BigInt(c.be32()) << 32n) | BigInt(low);
};

/** State of a modern transport (PCI or MMIO): selectors, accepted features, queue addresses. */
function modernState(c: Cursor): Value {
  const state: { [name: string]: Value } = { deviceFeatureSelect: c.be32(), guestFeatureSelect: c.be32() };
  state.guestFeatures = words(c);
  state.queues = perQueue(
    c,
    28,
    (c) => {
      const num = c.be16();
      c.u8(); // enabled was 16 bits once
      return { num, enabled: c.bool(), desc: words(c), avail: words(c), used: words(c) };
    },
    (q) => !q.enabled && q.desc === 0n && q.avail === 0n && q.used === 0n,
  );
  return state;
}

/** Readers of the subsections of vmstate_virtio, by name. */
const subsections: Record<string, (c: Cursor) => Value> = {
  'virtio/device_endian': (c) => ['unknown', 'little', 'big'][c.u8()] ?? 'unknown',
  'virtio/64bit_features': (c) => c.be64(),
  'virtio/virtqueues': (c) => perQueue(c, 16, (c) => ({ avail: c.be64(), used: c.be64() })),
  'virtio/packed_virtqueues': (c) =>
    perQueue(
      c,
      11,
      (c) => ({ lastAvail: c.be16(), availWrap: c.bool(), used: c.be16(), usedWrap: c.bool(), inUse: c.be32() }),
      (q) => q.lastAvail === 0 && q.used === 0 && q.inUse === 0,
    ),
  'virtio/ringsize': (c) => perQueue(c, 4, (c) => ({ default: c.be32() })),
  'virtio/broken': (c) => c.bool(),
  'virtio/started': (c) => c.bool(),
  'virtio/disabled': (c) => c.bool(),
  'virtio/extra_state': (c) => {
    const state: { [name: string]: Value } = {};
    while (isSubsection(c, 'virtio_pci/') || isSubsection(c, 'virtio_mmio/')) state[subsection(c)] = modernState(c);
    return state;
  },
};

type Bus = 'pci' | 'mmio';

/** One attempt: the bytes must end exactly where this form ends. */
function attempt(bytes: Buffer, bus: Bus, configSize: number, device: string): Value {
  const c = new Cursor(bytes);
  const out: { [name: string]: Value } = {};
  let vectors = 0;
  if (bus === 'pci') {
    c.take(4);
    const config = c.take(configSize);
    // A space with no vendor, or one that is not Red Hat's for virtio, means another size was written.
    if (config.readUInt16LE(0) !== 0x1af4) throw new BadForm('no virtio PCI function');
    const irq = irqState(c);
    vectors = msixEntries(config);
    out.pci = { config: pciConfig(config), irq, ...(vectors > 0 && { msix: msix(c, vectors) }) };
    if (vectors > 0) out.configVector = c.be16();
  } else {
    out.mmio = { hostFeaturesSelect: c.be32(), guestFeaturesSelect: c.be32(), guestPageShift: c.be32() };
  }
  const status = c.u8();
  out.status = statusBits.filter(([bit]) => status & bit).map(([, name]) => name);
  out.isr = c.u8();
  out.queueSelect = c.be16();
  let features = BigInt(c.be32());
  out.config = c.take(c.be32());
  const queues = c.be32();
  if (queues > maxQueues) throw new BadForm('queues');
  out.queues = Array.from({ length: queues }, (_, queue) => {
    const num = c.be32();
    const align = bus === 'mmio' ? c.be32() : undefined;
    return {
      queue,
      num,
      ...(align !== undefined && { align }),
      desc: c.be64(),
      lastAvail: c.be16(),
      ...(vectors > 0 && { vector: c.be16() }),
    };
  });
  // The class's own state has no length: the first subsection of the common part ends it.
  const from = c.at;
  c.at = nextSubsection(c, 'virtio/');
  if (c.at > from) out.deviceState = trimZeros(bytes.subarray(from, c.at));
  out.deviceStateSize = c.at - from;
  const subs: { [name: string]: Value } = {};
  while (c.left > 0) {
    const name = subsection(c);
    const read = subsections[name];
    if (!read) throw new BadForm(`subsection ${name}`);
    subs[name.slice('virtio/'.length)] = read(c);
  }
  if (typeof subs['64bit_features'] === 'bigint') features = subs['64bit_features'] as bigint;
  const own = virtioClass(device, bytes.subarray(from, from + (out.deviceStateSize as number)), { features, queues });
  return { ...out, features, ...(own && { class: own }), subsections: subs };
}

/**
 * A `virtio` field by its parts; the bytes as they are when no known bus fits to the last byte.
 * @param device the name of the device's state, which says what its class saves
 */
export function virtio(bytes: Buffer, device: string): Value {
  const forms: [Bus, number][] = [
    ['pci', 256],
    ['pci', 4096],
    ['mmio', 0],
  ];
  for (const [bus, size] of forms) {
    try {
      return attempt(bytes, bus, size, device);
    } catch (err) {
      if (badForm(err) === undefined) throw err;
    }
  }
  return bytes;
}
