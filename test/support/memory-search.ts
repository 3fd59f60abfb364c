/** Looks for byte strings in the memory of a process, as its core dump would have them. */
import fs from 'node:fs';

export interface Found {
  what: string;
  /** Of the mapping, as /proc/PID/maps names it. */
  where: string;
}

/** Bytes read at a time; neighbouring pieces overlap by the longest string. */
const piece = 4 << 20;

/**
 * Needs the right to trace the process.
 * @param secrets by name
 * @param skip mappings that a core dump leaves out, or that may have secrets: flags of /proc/PID/smaps
 */
export function searchMemory(pid: number, secrets: ReadonlyMap<string, Buffer>, skip = ['dd']): Found[] {
  const found: Found[] = [];
  const memory = fs.openSync(`/proc/${pid}/mem`, 'r');
  const overlap = Math.max(...[...secrets.values()].map(({ length }) => length)) - 1;
  const buffer = Buffer.alloc(piece + overlap);
  try {
    for (const { from, to, where, flags } of mappings(pid)) {
      if (skip.some((flag) => flags.includes(flag))) continue;
      for (let at = from; at < to; at += piece) {
        const wanted = Math.min(piece + overlap, to - at);
        let got = 0;
        try {
          got = fs.readSync(memory, buffer, 0, wanted, at);
        } catch (err) {
          if (!['EIO', 'EFAULT'].includes((err as NodeJS.ErrnoException).code!)) throw err;
          break; // nothing is mapped behind it, as of vvar
        }
        for (const [what, bytes] of secrets) if (buffer.subarray(0, got).includes(bytes)) found.push({ what, where });
      }
    }
  } finally {
    fs.closeSync(memory);
  }
  return found;
}

/** Readable mappings with their flags. */
function mappings(pid: number) {
  const all: { from: number; to: number; where: string; flags: string[] }[] = [];
  for (const line of fs.readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) r\S+ (.*)$/.exec(line);
    if (head) all.push({ from: Number.parseInt(head[1]!, 16), to: Number.parseInt(head[2]!, 16), where: line, flags: [] });
    else if (/^[0-9a-f]+-[0-9a-f]+ -/.test(line)) all.push({ from: 0, to: 0, where: '', flags: [] });
    else if (line.startsWith('VmFlags:')) all.at(-1)!.flags = line.slice(8).trim().split(' ');
  }
  return all.filter(({ from, to, where }) => to > from && !/\[v(var|syscall|var_vclock)\]/.test(where));
}
