/** Flattened device trees (Devicetree Specification 0.4, chapter 5): the memory that firmware is told of. */
import type { MemoryRange } from './acpi.js';

const magic = 0xd00dfeed;
const beginOfNode = 1;
const endOfNode = 2;
const prop = 3;
const nop = 4;
/** Nodes within nodes: far above any tree. */
const depth = 32;
/** Bytes of a name, likewise; the specification has 31. */
const nameMost = 255;

/** A property with the path of its node. */
interface Property {
  path: string;
  name: string;
  value: Buffer;
}

/** All properties of a tree, as far as it is well formed. */
function* properties(tree: Buffer): Generator<Property> {
  if (tree.length < 40 || tree.readUInt32BE(0) !== magic) return;
  const strings = tree.readUInt32BE(12);
  const path: string[] = [];
  const text = (at: number) => {
    const name = tree.subarray(at, at + nameMost + 1);
    return name.toString('latin1', 0, Math.max(0, name.indexOf(0)));
  };
  for (let at = tree.readUInt32BE(8); at + 4 <= tree.length; ) {
    const token = tree.readUInt32BE(at);
    at += 4;
    if (token === beginOfNode) {
      const name = text(at);
      path.push(name);
      if (path.length > depth) return;
      at += (name.length + 4) & ~3;
    } else if (token === endOfNode) {
      path.pop();
    } else if (token === prop) {
      if (at + 8 > tree.length) return;
      const length = tree.readUInt32BE(at);
      if (at + 8 + length > tree.length) return;
      yield { path: path.join('/'), name: text(strings + tree.readUInt32BE(at + 4)), value: tree.subarray(at + 8, at + 8 + length) };
      at = (at + 8 + length + 3) & ~3;
    } else if (token !== nop) return;
  }
}

/** Memory that the tree's `memory` nodes list, with addresses and sizes of 64 bits. */
export function memoryNodes(tree: Buffer): MemoryRange[] {
  const ranges: MemoryRange[] = [];
  let cells = 2;
  for (const { path, name, value } of properties(tree)) {
    if (path === '' && (name === '#address-cells' || name === '#size-cells') && value.length === 4)
      cells = Math.min(cells, value.readUInt32BE(0));
    if (!/^\/memory(@[0-9a-f]+)?$/.test(path) || name !== 'reg') continue;
    const size = cells * 8;
    for (let at = 0; at + size <= value.length; at += size) {
      const word = (i: number) => (cells === 2 ? value.readBigUInt64BE(i) : BigInt(value.readUInt32BE(i)));
      ranges.push({ address: word(at), length: word(at + cells * 4) });
    }
  }
  return ranges;
}

/** A block of memory is assigned to the partition (PAPR, ibm,dynamic-memory). */
const assigned = 8;

/** Plugged memory of a pseries machine, neighbours joined: ibm,dynamic-memory-v2 has runs of blocks, ibm,dynamic-memory single ones. */
export function dynamicMemory(tree: Buffer): MemoryRange[] {
  let block = 0n;
  const found: MemoryRange[] = [];
  const add = (address: bigint, length: bigint) => {
    const last = found.at(-1);
    if (last && last.address + last.length === address) last.length += length;
    else found.push({ address, length });
  };
  let list: Property | undefined;
  for (const property of properties(tree)) {
    const { path, name, value } = property;
    if (path !== '/ibm,dynamic-reconfiguration-memory') continue;
    if (name === 'ibm,lmb-size' && value.length === 8) block = value.readBigUInt64BE(0);
    if (/^ibm,dynamic-memory(-v2)?$/.test(name) && value.length >= 4) list = property;
  }
  if (list && block > 0n) {
    const { name, value } = list;
    const count = value.readUInt32BE(0);
    const v2 = name === 'ibm,dynamic-memory-v2';
    for (let i = 0, at = 4; i < count && at + 24 <= value.length; i++, at += 24) {
      const [blocks, address, flags] = v2
        ? [BigInt(value.readUInt32BE(at)), value.readBigUInt64BE(at + 4), value.readUInt32BE(at + 20)]
        : [1n, value.readBigUInt64BE(at), value.readUInt32BE(at + 20)];
      if (flags & assigned) add(address, blocks * block);
    }
  }
  return found;
}
