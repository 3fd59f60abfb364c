import { Exit, usage, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Host } from '../transaction/move.js';

/** The canonical form of a unicast MAC address. @throws VioError (usage) */
export function parseMac(text: string): string {
  const match = /^[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}$/i.exec(text);
  const mac = text.toLowerCase().replaceAll('-', ':');
  if (!match || mac === '00:00:00:00:00:00' || Number.parseInt(mac.slice(0, 2), 16) & 1)
    throw usage(`not a unicast MAC address: "${printable(text)}"`, 'such as 52:54:00:12:34:56');
  return mac;
}

interface LinkInfo {
  vfinfo_list?: { vf?: number; mac?: string; address?: string }[];
}

/** MAC addresses that the physical function has set for its virtual ones, by their index (`ip -json link`). */
export async function readMacs(host: Host, link: string): Promise<Map<number, string>> {
  const text = await host.ip(['-json', 'link', 'show', 'dev', link]);
  if (text.trim() === '') return new Map();
  let list: LinkInfo[];
  try {
    list = JSON.parse(text) as LinkInfo[];
  } catch (err) {
    throw new VioError(`ip -json link show dev ${link}: no JSON`, { code: 'IP', exit: Exit.damaged, cause: err });
  }
  const found = (list[0]?.vfinfo_list ?? []).flatMap(({ vf, mac, address }): [number, string][] => {
    const text = mac ?? address;
    return vf === undefined || text === undefined ? [] : [[vf, text.toLowerCase()]];
  });
  return new Map(found);
}
