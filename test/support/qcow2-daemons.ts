import fs from 'node:fs';

/** Process ids of the storage daemons of QEMU that have a file open. */
export const daemonsOf = (image: string): number[] =>
  fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        if (!fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('qemu-storage-daemon')) return false;
        return fs.readdirSync(`/proc/${pid}/fd`).some((fd) => fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === fs.realpathSync(image));
      } catch {
        return false;
      }
    });
