/** What device sections say about the machine's memory: facts that a walk collects while the sections pass. */

import type { Value } from '../stream/model.js';
import { Cursor } from './cursor.js';
import type { Fields } from './fields.js';

/** A virtio-mem device: a region of guest-physical memory of which only plugged blocks exist. */
export interface VirtioMem {
  section: string;
  address: bigint;
  /** bytes of the region, and of one block of it */
  size: bigint;
  blockSize: bigint;
  /** runs [first, end) of plugged blocks, in order; undefined where they could not be read */
  plugged: [first: bigint, end: bigint][] | undefined;
}

/** Sections that are decoded for their facts even if nobody asked for fields. */
const wanted = /(^|\/)(virtio-mem(-device-early)?|virtio-balloon|mc146818rtc|spapr|I440FX|mch)$/;

const big = (v: Value | undefined): bigint | undefined => (typeof v === 'bigint' ? v : typeof v === 'number' ? BigInt(v) : undefined);

/** The runs of a decoded bitmap: `0-3,7`. */
function runsOf(bits: Value | undefined): VirtioMem['plugged'] {
  if (typeof bits !== 'string') return undefined;
  return bits === ''
    ? []
    : bits.split(',').map((run) => {
        const [first, last] = run.split('-');
        return [BigInt(first!), BigInt(last ?? first!) + 1n];
      });
}

/** Runs of plugged blocks that are kept: no guest of some GiB has as many, and each takes some 100 bytes. */
const runsMost = 1 << 16;

/** The runs of a bitmap of 64-bit big-endian words. */
function runsOfWords(c: Cursor): VirtioMem['plugged'] {
  const runs: [bigint, bigint][] = [];
  for (let at = 0n; c.left >= 8; at += 64n) {
    const word = c.be64();
    for (let bit = 0n; bit < 64n && word >> bit !== 0n; bit++) {
      if (((word >> bit) & 1n) === 0n) continue;
      const last = runs.at(-1);
      if (last?.[1] === at + bit) last[1] += 1n;
      else if (runs.push([at + bit, at + bit + 1n]) > runsMost) return undefined;
    }
  }
  return runs;
}

/** The state of a virtio device's class, with the zeros at its end that the decoder leaves out. */
function classState(fields: Fields): Buffer | undefined {
  const { virtio } = fields as { virtio?: Fields };
  const state = virtio?.deviceState;
  if (!(state instanceof Uint8Array)) return undefined;
  const bytes = Buffer.alloc(Math.max(state.length, Number(virtio?.deviceStateSize ?? 0)));
  bytes.set(state);
  return bytes;
}

/** The class state of a virtio-mem device of machine types before 8.0, which have no early section: checks, sizes, bitmap. */
function lateVirtioMem(section: string, bytes: Buffer): VirtioMem | undefined {
  if (bytes.length < 52) return undefined;
  const c = new Cursor(bytes);
  const [address, region, blockSize] = [c.be64(), c.be64(), c.be64()];
  c.at += 4 + 3 * 8; // node; usable region, plugged and requested size
  return { section, address, size: region, blockSize, plugged: runsOfWords(c) };
}

/** Bytes of a PC's CMOS. */
const CMOS = 128;

/** Where the registers are, in the configuration space, that say which RAM below 1 MiB guests read (82441FX, 3.2.18; Q35, 5.1.22). */
const PAM: { device: RegExp; at: number }[] = [
  { device: /(^|\/)I440FX$/, at: 0x59 },
  { device: /(^|\/)mch$/, at: 0x90 },
];
const pamSize = 7;
const pamOf = (section: string, config: Uint8Array): Uint8Array | undefined => {
  const at = PAM.find(({ device }) => device.test(section))?.at;
  return at === undefined ? undefined : Uint8Array.from({ length: pamSize }, (_, i) => config[at + i] ?? 0);
};

const hints = 'virtio-balloon-device/free-page-report';

/** Whether a balloon's guest took the feature of free-page hints, and QEMU asked for them at least once. */
function hinted(state: Buffer): boolean {
  const at = state.indexOf(hints, 0, 'latin1');
  const id = at + hints.length + 4; // behind the version
  return at >= 0 && id + 4 <= state.length && state.readUInt32BE(id) !== 0;
}

export class Evidence {
  readonly virtioMem: VirtioMem[] = [];
  /** the guest told QEMU which pages it does not use, so that they need not be sent */
  freePageHints = false;
  /** battery-backed memory of a PC */
  cmos: Uint8Array | undefined;
  /** the seven registers that open a PC's RAM between 768 KiB and 1 MiB */
  pam: Uint8Array | undefined;
  /** the device tree of a pseries guest */
  deviceTree: Buffer | undefined;

  /** Whether the fields of a section are facts. */
  static wants(name: string): boolean {
    return wanted.test(name);
  }

  /** Bytes from the start of a body that noteRaw looks at. */
  static readonly rawBytes = 256;

  /** Whether the start of a section's body is a fact, described or not. */
  static wantsRaw(name: string): boolean {
    return name === 'mc146818rtc' || PAM.some(({ device }) => device.test(name));
  }

  /** Takes the facts of a body that nothing describes: what matters comes first (QEMU hw/rtc/mc146818rtc.c, hw/pci/pci.c). */
  noteRaw(section: string, body: Buffer): void {
    if (section === 'mc146818rtc' && body.length >= CMOS) this.cmos ??= Buffer.from(body.subarray(0, CMOS));
    // A version, then the configuration space.
    else if (body.length >= 160) this.pam ??= pamOf(section, body.subarray(4));
  }

  /** Takes the facts of a section. */
  note(section: string, fields: Fields): void {
    if (section.endsWith('mc146818rtc') && fields.cmos_data instanceof Uint8Array) this.cmos ??= fields.cmos_data;
    const config = (fields as { parent_obj?: { 'config[0]'?: Fields } }).parent_obj?.['config[0]']?.bytes;
    if (config instanceof Uint8Array) this.pam ??= pamOf(section, config);
    if (section === 'spapr') {
      const blob = (fields as { spapr_dtb?: Fields }).spapr_dtb?.fdt_blob;
      if (blob instanceof Uint8Array) this.deviceTree ??= Buffer.from(blob);
    }
    if (section.endsWith('virtio-balloon')) {
      const state = classState(fields);
      if (state && hinted(state)) this.freePageHints = true;
    }
    if (section.endsWith('virtio-mem-device-early')) {
      const { tmp, bitmap } = fields as { tmp?: Fields; bitmap?: Value };
      const [address, size, blockSize] = [big(tmp?.addr), big(tmp?.region_size), big(tmp?.block_size)];
      if (address !== undefined && size !== undefined && blockSize !== undefined)
        this.virtioMem.push({ section, address, size, blockSize, plugged: runsOf(bitmap) });
    } else if (section.endsWith('virtio-mem') && !this.virtioMem.some((d) => d.section.startsWith(section))) {
      const state = classState(fields);
      const device = state && lateVirtioMem(section, state);
      if (device) this.virtioMem.push(device);
    }
  }
}
