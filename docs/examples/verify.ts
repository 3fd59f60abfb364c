/**
 * Verifies a list as sha256sum(1) writes it: `verify LIST`. Prints what differs or cannot be read; exit status 1 if anything does.
 *
 * A file is one request of the ring (open, read to the end, close) and one callback. Files of up to 256 KiB are summed in one piece; larger ones as a
 * stream. For lists of a million files there is `vioctl uring sum --check`, which sums on threads as well.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { errnoError, FileTable, Operations, READ_WHOLE_OPEN, Ring } from 'vioctl/uring';

/** Files under way at once, each with a slot and a buffer. */
const FILES = 64;
const BUFFER = 256 * 1024;

/** How one line came out. */
export interface Verdict {
  name: string;
  /** undefined: the file is as the list says. */
  problem: string | undefined;
}

interface Place {
  slot: number;
  buffer: Buffer;
}

/** Verifies lines; the verdicts come as files end. */
export class Verifier {
  readonly #ring = new Ring({ entries: 2 * FILES });
  readonly #io = new Operations(this.#ring);
  readonly #table = new FileTable(this.#ring);
  readonly #places: Place[] = [];
  readonly #waiting: ((place: Place) => void)[] = [];

  constructor() {
    this.#table.registerSparse(FILES);
    const memory = Buffer.allocUnsafeSlow(FILES * BUFFER);
    for (let slot = 0; slot < FILES; slot++) this.#places.push({ slot, buffer: memory.subarray(slot * BUFFER, (slot + 1) * BUFFER) });
  }

  /** Resolves when a line may begin; its own promise tells when it has ended. */
  async begin(expected: string, name: string): Promise<{ verdict: Promise<Verdict> }> {
    const place = this.#places.pop() ?? (await new Promise<Place>((resolve) => this.#waiting.push(resolve)));
    const verdict = this.#sum(name, place)
      .then((digest) => (digest === expected ? undefined : 'FAILED'))
      .catch((err) => `FAILED open or read: ${err.code ?? err.message}`)
      .then((problem) => {
        const next = this.#waiting.shift();
        if (next) next(place);
        else this.#places.push(place);
        return { name, problem };
      });
    return { verdict };
  }

  async #sum(name: string, { slot, buffer }: Place): Promise<string> {
    if (name.includes('\0')) throw errnoError(-22, 'open');
    const path = Buffer.from(`${name}\0`);
    const [size, open] = await new Promise<[number, boolean]>((resolve) =>
      this.#ring.readWhole(path, fs.constants.O_NOCTTY, slot, buffer, (n, flags) => resolve([n, (flags & READ_WHOLE_OPEN) !== 0])),
    );
    if (size < 0) throw errnoError(size, 'read');
    const hash = createHash('sha256').update(buffer.subarray(0, size));
    if (open)
      for await (const chunk of this.#io.createReadStream(this.#table.slot(slot), { start: size, highWaterMark: BUFFER }))
        hash.update(chunk);
    return hash.digest('hex');
  }

  close(): void {
    this.#ring.close();
  }
}

/** Verifies a list. @returns verdicts of what is wrong, and how many lines there were */
export async function verify(list: string): Promise<{ lines: number; wrong: Verdict[] }> {
  const verifier = new Verifier();
  const verdicts: Promise<void>[] = [];
  const wrong: Verdict[] = [];
  let lines = 0;
  try {
    for await (const line of createInterface({ input: fs.createReadStream(list), crlfDelay: Number.POSITIVE_INFINITY })) {
      const match = /^([0-9a-f]{64}) [ *](.+)$/.exec(line);
      if (!match) {
        wrong.push({ name: line, problem: 'not a line of sha256sum' });
        continue;
      }
      lines++;
      const { verdict } = await verifier.begin(match[1]!, match[2]!);
      verdicts.push(
        verdict.then((done) => {
          if (done.problem !== undefined) wrong.push(done);
        }),
      );
    }
    await Promise.all(verdicts);
  } finally {
    verifier.close();
  }
  return { lines, wrong };
}

async function main([list]: string[]): Promise<void> {
  if (list === undefined) throw new Error('usage: verify LIST');
  const { lines, wrong } = await verify(list);
  for (const { name, problem } of wrong) console.log(`${name}: ${problem}`);
  console.error(`${lines} files, ${wrong.length} wrong`);
  process.exitCode = wrong.length > 0 ? 1 : 0;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  main(process.argv.slice(2)).catch((err) => {
    console.error(`verify: ${err.message}`);
    process.exitCode = 1;
  });
}
