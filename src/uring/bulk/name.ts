/** A file name: text, or bytes where they are not UTF-8. */
export type Name = string | Buffer;

/** Bytes of a path with its NUL (limits.h). */
export const PATH_MAX = 4096;

/** The errno that open(2) would give for a name that cannot be passed to it: empty, too long, or with a NUL inside. */
export function pathError(name: Name): string | undefined {
  if (name.length === 0) return 'ENOENT';
  // A UTF-16 unit is three bytes of UTF-8 at most: most names need no counting.
  if (name.length * 3 >= PATH_MAX && Buffer.byteLength(name) >= PATH_MAX) return 'ENAMETOOLONG';
  return name.includes('\0') ? 'EINVAL' : undefined;
}

/** Writes a name and its NUL into a buffer of PATH_MAX bytes. */
export function putPath(to: Buffer, name: Name): void {
  const size = typeof name === 'string' ? to.write(name, 0, 'utf8') : name.copy(to);
  to[size] = 0;
}
