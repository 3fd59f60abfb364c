import { Exit, usage, VioError } from '../common/errors.js';
import { firstFd, type HandOver, listenEnvironment } from '../launch/handover.js';
import type { HolderInfo } from './holder.js';

const json = (value: unknown): string => JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v));

/** Placeholders that name descriptors of the session: `{device}`, and `{device1}` for the second device. */
const placeholder = /\{(vf-token)\}|\{(?:(device|group|container|iommufd)(\d*)|([A-Za-z][A-Za-z0-9_.-]*)\.(fd|iova|size))\}/g;

/** Whether the words ask for one of the two APIs: `{iommufd}` is cdev, `{container}` and `{group}` are group. */
export function apiOf(words: readonly string[]): 'group' | 'cdev' | undefined {
  const names = new Set(words.flatMap((word) => [...word.matchAll(placeholder)].map((match) => match[2])));
  const cdev = names.has('iommufd');
  const group = names.has('container') || names.has('group');
  if (cdev && group) throw usage('{iommufd} and {container} or {group} are of different APIs');
  return cdev ? 'cdev' : group ? 'group' : undefined;
}

/**
 * Prepares the words and the environment of a program.
 * @param fds descriptors by the names of LISTEN_FDNAMES: `vfio-container` or `iommufd`, `vfio-group`, `vfio-device`,
 * `dma-NAME`; those of a second device end in `-1`
 * @param info goes to VIOCTL_VFIO with the numbers that the descriptors will have
 * @param token VF token that `{vf-token}` stands for
 * @throws VioError (usage) for a placeholder of a descriptor that is not there
 */
export function handOver(
  words: readonly string[],
  fds: ReadonlyMap<string, number>,
  info: Omit<HolderInfo, 'maps'> & { maps: readonly { name: string; iova: bigint | string; size: number | bigint }[] },
  token?: string,
): HandOver {
  const numbers = new Map([...fds.keys()].map((name, i) => [name, firstFd + i]));
  const maps = new Map(info.maps.map((map) => [map.name, map]));
  const need = (name: string, text: string): string => {
    const fd = numbers.get(name);
    if (fd === undefined)
      throw new VioError(`${text}: there is no such descriptor`, {
        code: 'USAGE',
        exit: Exit.usage,
        hint: `there are ${[...numbers.keys()].join(', ')}${info.api === 'cdev' ? '; --api group has a group and a container' : '; --api cdev has an iommufd'}`,
      });
    return String(fd);
  };
  const substitute = (word: string): string =>
    word.replace(placeholder, (text, secret: string | undefined, kind: string | undefined, index: string, name: string, field: string) => {
      if (secret !== undefined) {
        if (token === undefined) throw usage(`${text}: there is no VF token`, '--vf-token UUID');
        return token;
      }
      if (kind !== undefined) {
        const suffix = index === '' || index === '0' ? '' : `-${index}`;
        return need(kind === 'iommufd' ? 'iommufd' : `vfio-${kind}${suffix}`, text);
      }
      const map = maps.get(name);
      if (!map) return text; // not ours: a word may have braces of its own
      if (field === 'fd') return need(`dma-${name}`, text);
      return field === 'size' ? String(map.size) : typeof map.iova === 'bigint' ? `0x${map.iova.toString(16)}` : map.iova;
    });
  const document = {
    ...info,
    fds: Object.fromEntries(numbers),
    maps: info.maps.map((map) => ({ ...map, fd: numbers.get(`dma-${map.name}`) })),
  };
  return {
    argv: words.map(substitute),
    env: { ...listenEnvironment([...fds.keys()]), VIOCTL_VFIO: json(document) },
    fds: [...fds.values()],
  };
}
