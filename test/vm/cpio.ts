// Writes "newc" cpio archives, the format of an initramfs (Linux Documentation/driver-api/early-userspace/buffer-format).

/** An entry of the archive. Folders have no data; `mode` holds the permission bits. */
export type CpioEntry =
  | { name: string; type: 'dir' }
  | { name: string; type: 'file'; data: Buffer | string; mode?: number }
  | { name: string; type: 'link'; target: string };

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** The archive of the entries, ready to be used as an initramfs or to be appended to one. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  const pad = (n: number) => Buffer.alloc((4 - (n % 4)) % 4);
  const put = (ino: number, name: string, mode: number, data: Buffer) => {
    const nameBytes = Buffer.from(`${name}\0`);
    const fields = [ino, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, nameBytes.length, 0];
    const head = Buffer.from(`070701${fields.map((f) => f.toString(16).padStart(8, '0')).join('')}`);
    parts.push(head, nameBytes, pad(head.length + nameBytes.length), data, pad(data.length));
  };
  entries.forEach((e, i) => {
    if (e.type === 'dir') put(i + 1, e.name, S_IFDIR | 0o755, Buffer.alloc(0));
    else if (e.type === 'link') put(i + 1, e.name, S_IFLNK | 0o777, Buffer.from(e.target));
    else put(i + 1, e.name, S_IFREG | (e.mode ?? 0o644), typeof e.data === 'string' ? Buffer.from(e.data) : e.data);
  });
  put(0, 'TRAILER!!!', 0, Buffer.alloc(0));
  const all = Buffer.concat(parts);
  return Buffer.concat([all, Buffer.alloc((512 - (all.length % 512)) % 512)]);
}
