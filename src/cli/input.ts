import fs from 'node:fs';

/**
 * Items of a list on a descriptor (stdin), separated by newline or NUL, in constant memory. Empty items are left out;
 * a last item without separator counts. Names stay bytes-faithful as long as they are UTF-8.
 * @param separator 10 (newline) or 0 (`-0`)
 */
export async function* readList(fd: number, separator: 0 | 10): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  const chunk = Buffer.allocUnsafe(64 * 1024);
  for (;;) {
    const size = await new Promise<number>((resolve, reject) =>
      fs.read(fd, chunk, 0, chunk.length, null, (err, n) => (err ? (err.code === 'EOF' ? resolve(0) : reject(err)) : resolve(n))),
    );
    if (size === 0) break;
    const data = rest.length ? Buffer.concat([rest, chunk.subarray(0, size)]) : chunk.subarray(0, size);
    let at = 0;
    for (let end = data.indexOf(separator, at); end >= 0; end = data.indexOf(separator, at)) {
      if (end > at) yield data.toString('utf8', at, end);
      at = end + 1;
    }
    rest = Buffer.from(data.subarray(at));
  }
  if (rest.length > 0) yield rest.toString('utf8');
}

/** All items of a short list: the arguments, with `-` (or no argument at all, when `orStdin`) read from stdin. */
export async function collectList(args: string[], options: { null: boolean; orStdin: boolean }): Promise<string[]> {
  const items: string[] = [];
  for (const arg of args.length === 0 && options.orStdin ? ['-'] : args) {
    if (arg === '-') for await (const item of readList(0, options.null ? 0 : 10)) items.push(item);
    else items.push(arg);
  }
  return items;
}
