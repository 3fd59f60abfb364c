/** Identify data as nvme-cli shows it: the same keys in JSON, `key : value` lines for people. */
import { printable } from '../../common/escape.js';
import { formatSize } from '../../common/units.js';
import { Cns, identifyController, identifyNamespace, NsIdType, versionText } from '../wire/index.js';
import type { Controller } from './controller.js';

/** What was found: the raw data and its JSON form. */
export interface Identified {
  raw: Buffer;
  json: Record<string, unknown>;
}

const uuid = (hex: string): string => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

/** Values as nvme-cli prints them: numbers where they are exact, identifiers as hex text. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  return value;
}

const controllerJson = (raw: Buffer): Record<string, unknown> => {
  const entries = Object.entries(identifyController.decode(raw)).map(([key, value]) => [key, plain(value)]);
  const json = Object.fromEntries(entries) as Record<string, unknown>;
  return { ...json, fguid: uuid(json.fguid as string) };
};

function namespaceJson(raw: Buffer): Record<string, unknown> {
  const { lbafs, ...rest } = identifyNamespace.decode(raw);
  const json = Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, plain(value)]));
  return { ...json, lbafs: lbafs.slice(0, rest.nlbaf + 1) };
}

/** A namespace in the list below Identify Controller. */
interface NamespaceRow {
  nsid: number;
  nsze: number | bigint;
  blockSize: number;
  size: number | bigint;
  nguid: string;
  eui64: string;
}

/** Identify Controller with the list of namespaces; or Identify Namespace with its descriptors. */
export async function identifyTarget(controller: Controller, nsid?: number): Promise<Identified> {
  if (nsid !== undefined) {
    const raw = await controller.identifyData(Cns.namespace, nsid);
    const names = new Map<number, string>(Object.entries(NsIdType).map(([name, { type }]) => [type, name]));
    const descs = (await controller.descriptors(nsid)).map(({ type, id }) => {
      const hex = id.toString('hex');
      return { type: names.get(type) ?? String(type), id: type === NsIdType.uuid.type ? uuid(hex) : hex };
    });
    return { raw, json: { ...namespaceJson(raw), descs } };
  }
  const namespaces: NamespaceRow[] = [];
  for (const id of await controller.namespaces()) {
    const { identify, blocks, blockSize } = await controller.namespace(id);
    namespaces.push({
      nsid: id,
      nsze: plain(blocks) as number | bigint,
      blockSize,
      size: plain(blocks * BigInt(blockSize)) as number | bigint,
      nguid: Buffer.from(identify.nguid).toString('hex'),
      eui64: Buffer.from(identify.eui64).toString('hex'),
    });
  }
  return { raw: controller.identifyRaw, json: { ...controllerJson(controller.identifyRaw), namespaces } };
}

/** Fields that read better in hex. */
const hexFields =
  /^(vid|ssvid|ieee|cmic|ver|oaes|ctratt|rrls|oacs|frmw|lpa|avscc|apsta|sanicap|anacap|sqes|cqes|oncs|fuses|fna|vwc|sgls|flbas|mc|dpc|dps|nmic|rescap|fpi|dlfeat|nsfeat|nsattr|cntlid|rtd3r|rtd3e|hctma|ofcs|fcatt|bpcap|mec)$/;

/** The lines for people. Untrusted text is escaped. */
export function describeIdentify({ json }: Identified): string[] {
  const lines: string[] = [];
  const show = (key: string, value: unknown): string => {
    if (key === 'ver') return `0x${(value as number).toString(16)} (${versionText(value as number)})`;
    if (hexFields.test(key) && typeof value === 'number') return `0x${value.toString(16)}`;
    return printable(String(value));
  };
  for (const [key, value] of Object.entries(json)) {
    if (key === 'lbafs') {
      for (const [i, { ms, ds, rp }] of (value as { ms: number; ds: number; rp: number }[]).entries())
        lines.push(
          `lbaf ${String(i).padStart(2)} : ms:${ms} lbads:${ds} rp:${rp}${((json.flbas as number) & 0xf) === i ? ' (in use)' : ''}`,
        );
    } else if (key === 'descs') {
      for (const { type, id } of value as { type: string; id: string }[]) lines.push(`${type.padEnd(9)} : ${id}`);
    } else if (key === 'namespaces') {
      for (const ns of value as NamespaceRow[])
        lines.push(`namespace ${ns.nsid} : ${formatSize(ns.size)}, ${ns.nsze} blocks of ${ns.blockSize} bytes, nguid ${ns.nguid}`);
    } else {
      lines.push(`${key.padEnd(9)} : ${show(key, value)}`);
    }
  }
  return lines;
}
