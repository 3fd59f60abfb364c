/** Will a destination load a stream? By the checks that QEMU makes (migration/savevm.c, vmstate.c, ram.c, hw/pci/pci.c). */
import { hex64 } from '../../common/units.js';
import { type Input, type InputOptions, openInput } from '../containers/input.js';
import type { Fields } from '../devices/fields.js';
import type { StateDesc } from '../devices/vmdesc.js';
import type { Issue } from '../stream/issues.js';
import type { Value } from '../stream/model.js';
import { Walker } from '../walk.js';
import { damaged, events, isDamaged } from './dump.js';
import { documentIn, type TypeShape, type TypesShape, typesOf } from './vmstate.js';

/** One thing that keeps the destination from loading. */
export interface Obstacle {
  /** the device or the RAM block; `machine` */
  path: string;
  /** what QEMU prints */
  message: string;
  /** what to change */
  cure: string;
}

export interface Against {
  /** null: too little could be compared to tell */
  loads: boolean | null;
  obstacles: Obstacle[];
  /** sections of devices whose state was compared with that of the destination, and how many there are */
  compared: { sections: number; of: number };
  /** what the destination cannot tell: it was not compared */
  notes: string[];
}

/** A section, as far as loading depends on it. */
interface SectionShape {
  name: string;
  instance: number;
  version: number;
  vmsd: string | undefined;
  subsections: string[];
  /** of a PCI function */
  pci: Fields | undefined;
  msix: number | undefined;
  /** virtqueues of a virtio device */
  queues: number | undefined;
}

interface StreamShape {
  machine: string;
  pageBits: number | undefined;
  blocks: Map<string, bigint>;
  sections: Map<string, SectionShape>;
  /** the stream describes its devices */
  described: boolean;
}

const label = ({ name, instance }: Pick<SectionShape, 'name' | 'instance'>): string => (instance === 0 ? name : `${name}#${instance}`);

/** Names of all subsections within a state. */
function subsectionsOf(state: { fields?: StateDesc['fields'] | undefined; subsections?: StateDesc[] | undefined }): string[] {
  return [
    ...(state.subsections ?? []).flatMap((s) => [s.vmsd_name, ...subsectionsOf(s)]),
    ...(state.fields ?? []).flatMap((f) => (f.struct ? subsectionsOf(f.struct) : [])),
  ];
}

const object = (v: Value | undefined): Fields | undefined =>
  v !== null && typeof v === 'object' && !Array.isArray(v) && !(v instanceof Uint8Array) ? v : undefined;

/** The PCI configuration in the fields of a device: of virtio, or of another function. */
function pciOf(fields: Fields): Fields | undefined {
  const virtio = object(object(fields.virtio)?.pci)?.config;
  const parent = object(fields.parent_obj) ?? object(fields.dev) ?? fields;
  const found = Object.entries(parent).find(([name]) => name.startsWith('config'))?.[1];
  return object(virtio ?? found);
}

/** All of a stream that loading depends on. @throws VioError if it is damaged */
async function shapeOf(input: Input, tick: (position: number) => void): Promise<StreamShape> {
  const walker = new Walker(input.reader, { issues: input.issues, fields: true, ram: { bitmapOrder: input.bitmapOrder } });
  const sections = new Map<string, SectionShape>();
  const issues: Issue[] = [];
  for await (const event of events(input, walker)) {
    if (event.type === 'progress') tick(event.position);
    if (event.type === 'issue') issues.push(event.issue);
    if (event.type !== 'section' || event.record === 'part' || event.record === 'end') continue;
    const described = walker.description?.device(event.name, event.instance);
    const virtio = object(event.fields?.virtio);
    const shape: SectionShape = {
      name: event.name,
      instance: event.instance,
      version: event.version,
      vmsd: described?.vmsd_name,
      subsections: described ? subsectionsOf(described) : [],
      pci: event.fields && pciOf(event.fields),
      msix: Number(object(object(virtio?.pci)?.msix)?.entries ?? 0),
      queues: Array.isArray(virtio?.queues) ? virtio.queues.length : undefined,
    };
    sections.set(label(shape), shape);
  }
  if (isDamaged({ complete: walker.sawEof, issues })) throw damaged(input.name, issues);
  const blocks = new Map((walker.ram?.blocks ?? []).map((b) => [b.name, b.length]));
  const { machine = '', pageBits } = walker.configuration ?? {};
  return { machine, pageBits, blocks, sections, described: walker.description !== undefined };
}

/** Blocks that QEMU resizes when it loads them: tables and files that it makes for the firmware. */
const resizable = /^\/rom@/;
/** Sections that a destination has, though one that never ran does not send them. */
const onDemand = /^(dirty-bitmap|block|spapr_drc|slirp)$/;

function* machineObstacles(from: StreamShape, machine: string): Generator<Obstacle> {
  if (from.machine === '' || machine === '' || from.machine === machine) return;
  const message = `Machine type received is '${from.machine}' and local is '${machine}'`;
  yield { path: 'machine', message, cure: `start the destination with -machine ${from.machine}` };
}

function* ramObstacles(from: StreamShape, to: StreamShape): Generator<Obstacle> {
  for (const [name, length] of from.blocks) {
    const there = to.blocks.get(name);
    if (there === undefined) {
      const message = `Unknown ramblock "${name}", cannot accept migration`;
      yield { path: name, message, cure: 'give the destination the device or memory backend of this name' };
    } else if (there !== length && !resizable.test(name)) {
      const message = `Size mismatch: ${name}: ${hex64(length)} != ${hex64(there)}: Invalid argument`;
      yield { path: name, message, cure: `give it ${length} bytes (-m, the size of the memory backend, or the ROM file)` };
    }
  }
}

/** Parts of a PCI configuration that a device cannot change: those of the source must be those of the destination. */
const fixed = ['vendor', 'device', 'revision', 'class', 'headerType', 'subsystem'];

function* pciObstacles(a: SectionShape, b: SectionShape): Generator<Obstacle> {
  if (!a.pci || !b.pci) return;
  const path = label(a);
  const differs = fixed.find((key) => String(a.pci![key]) !== String(b.pci![key]));
  const capabilities = (p: Fields) =>
    Array.isArray(p.capabilities) ? p.capabilities.map((c) => `${object(c)?.id}@${object(c)?.offset}`).join(' ') : '';
  if (differs) {
    const message = `get_pci_config_device: Bad config data: ${differs}: read: ${a.pci[differs]} device: ${b.pci[differs]}`;
    yield { path, message, cure: 'use the same device model and the same machine type' };
  } else if (capabilities(a.pci) !== capabilities(b.pci)) {
    const message = `get_pci_config_device: Bad config data: capabilities: read: ${capabilities(a.pci)} device: ${capabilities(b.pci)}`;
    yield { path, message, cure: 'use the same properties of the device and the same machine type' };
  } else if (a.msix !== b.msix) {
    const message = `get_pci_config_device: Bad config data: MSI-X vectors: read: ${a.msix} device: ${b.msix}`;
    yield { path, message, cure: `vectors=${a.msix}, and as many queues as the source has` };
  }
}

function* sectionObstacles(from: StreamShape, to: StreamShape): Generator<Obstacle> {
  for (const [path, a] of from.sections) {
    const b = to.sections.get(path);
    if (!b) {
      if (onDemand.test(a.name)) continue;
      const message = `Unknown section or instance '${a.name}' ${a.instance}. Make sure that your current VM setup matches your saved VM setup, including any hotplugged devices`;
      const cpus = /^cpu(_common)?$/.test(a.name);
      yield {
        path,
        message,
        cure: cpus ? 'start the destination with as many CPUs (-smp)' : 'give the destination this device, at the same address',
      };
      continue;
    }
    if (a.version > b.version) {
      const message = `savevm: unsupported version ${a.version} for '${a.name}' v${b.version}`;
      yield { path, message, cure: 'use a newer QEMU on the destination, or an older machine type on the source' };
    }
    if (a.queues !== undefined && b.queues !== undefined && a.queues !== b.queues && /virtio-net$/.test(a.name)) {
      const pairs = (queues: number) => Math.max(1, (queues - 1) >> 1);
      const message = `${pairs(a.queues)} != ${pairs(b.queues)}: Failed to load virtio-net-device:max_queue_pairs`;
      yield { path, message, cure: `queues=${pairs(a.queues)} of the network back-end, vectors=${2 * pairs(a.queues) + 2}` };
    } else yield* pciObstacles(a, b);
  }
}

function* typeObstacles(from: StreamShape, types: ReadonlyMap<string, TypeShape>): Generator<Obstacle> {
  for (const [path, a] of from.sections) {
    const type = a.vmsd === undefined ? undefined : types.get(a.vmsd);
    if (!type) continue;
    if (a.version > type.version || a.version < type.minimum) {
      const message =
        a.version > type.version
          ? `savevm: unsupported version ${a.version} for '${a.name}' v${type.version}`
          : `${a.vmsd}: incoming version_id ${a.version} is too old for local minimum version_id ${type.minimum}`;
      yield { path, message, cure: 'use another QEMU on the destination, or another machine type on the source' };
    }
    for (const name of a.subsections) {
      if (type.subsections.has(name)) continue;
      yield {
        path,
        message: `subsection ${name} is unknown: error while loading state for instance ${hex64(a.instance)} of device '${a.name}'`,
        cure: 'use a newer QEMU on the destination, or an older machine type on the source',
      };
    }
  }
}

/**
 * Judges whether a destination loads `source`.
 * @param file a stream of the destination, which was started with -S and never ran, or the JSON of its -dump-vmstate
 * @throws VioError
 */
export async function against(source: Input, file: string, options: InputOptions, tick: (position: number) => void): Promise<Against> {
  const from = await shapeOf(source, tick);
  const text = documentIn(file);
  if (text !== undefined) return againstTypes(from, typesOf(file, text));
  return againstStream(from, await shapeOf(openInput(file, options), () => {}));
}

/** The verdict by versions and subsections alone. */
function againstTypes(from: StreamShape, to: TypesShape): Against {
  const obstacles = [...machineObstacles(from, to.machine), ...typeObstacles(from, to.types)];
  const known = [...from.sections].filter(([, s]) => s.vmsd !== undefined && to.types.has(s.vmsd));
  const others = [...from.sections.keys()].filter((path) => !known.some(([k]) => k === path));
  const notes = [
    ...machineNotes(from, to.machine),
    ...(from.described ? [] : ['the stream does not describe its devices: they were not compared']),
    ...(from.described && others.length > 0 ? [`not compared, as the document has no state of their name: ${others.join(', ')}`] : []),
    '-dump-vmstate tells versions and subsections of device types: RAM blocks, which devices the destination has and their addresses were not compared',
  ];
  return {
    loads: obstacles.length > 0 ? false : known.length > 0 ? true : null,
    obstacles,
    compared: { sections: known.length, of: from.sections.size },
    notes,
  };
}

function againstStream(from: StreamShape, to: StreamShape): Against {
  const obstacles = [...machineObstacles(from, to.machine), ...ramObstacles(from, to), ...sectionObstacles(from, to)];
  if (from.pageBits !== undefined && to.pageBits !== undefined && from.pageBits !== to.pageBits) {
    const message = `Received TARGET_PAGE_BITS is ${from.pageBits} but local is ${to.pageBits}`;
    obstacles.push({ path: 'machine', message, cure: 'use the same machine and CPU' });
  }
  const bare = [...(from.described ? [] : ['source']), ...(to.described ? [] : ['destination'])];
  const notes = [
    ...machineNotes(from, to.machine),
    ...(bare.length > 0
      ? [`the stream of the ${bare.join(' and of the ')} does not describe its devices: PCI configuration and queues were not compared`]
      : []),
    'features of virtio devices and capabilities of the migration are not in the stream of a destination: they were not compared',
  ];
  const compared = { sections: [...from.sections.keys()].filter((path) => to.sections.has(path)).length, of: from.sections.size };
  return { loads: obstacles.length === 0, obstacles, compared, notes };
}

/** What is said where a machine type is not known. */
function machineNotes(from: StreamShape, machine: string): string[] {
  const bare = [...(from.machine === '' ? ['source'] : []), ...(machine === '' ? ['destination'] : [])];
  return bare.length > 0 ? [`the ${bare.join(' and the ')} does not name its machine type: it was not compared`] : [];
}
