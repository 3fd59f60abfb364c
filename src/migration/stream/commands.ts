/** COMMAND records and their data (QEMU migration/savevm.c). */

import { BadForm, badForm, Cursor } from '../devices/cursor.js';
import { commands } from './format.js';
import { report } from './issues.js';
import type { Detail, Value, WalkEvent } from './model.js';
import type { StreamReader } from './reader.js';

/** RAM_DISCARD: version, block name with a NUL behind it, then ranges of the block that will come again. */
function ramDiscard(c: Cursor): Detail {
  const version = c.u8();
  if (version !== 0) throw new BadForm(`version ${version}`);
  const block = c.take(c.u8()).toString('latin1');
  if (c.u8() !== 0) throw new BadForm('no NUL behind the block name');
  const ranges: Value[] = [];
  while (c.left > 0) ranges.push({ start: c.be64(), length: c.be64() });
  return { block, ranges };
}

/** The destination runs from here on, and asks for the pages that it has not. */
const postcopyRun = 5;

const readers: Readonly<Record<number, (c: Cursor) => Detail>> = {
  2: (c) => ({ value: c.be32() }),
  // Without data where only dirty bitmaps are sent later.
  3: (c) => (c.left === 0 ? {} : { pageSizes: c.be64(), targetPage: c.be64() }),
  6: ramDiscard,
  7: (c) => ({ packaged: c.be32() }),
  10: (c) => ({ block: c.take(c.u8()).toString('latin1') }),
};

/** What the data of a command means; nothing for a command without. @throws BadForm when it has not the form that it should have */
function commandDetail(command: number, data: Buffer): Detail {
  const read = readers[command];
  if (!read) return {};
  const c = new Cursor(data);
  const detail = read(c);
  if (c.left > 0) throw new BadForm(`${c.left} bytes too many`);
  return detail;
}

/** The COMMAND record at `at`, whose type byte was taken. Yields it and what is wrong; returns what its data mean. */
export function* readCommand(reader: StreamReader, at: number): Generator<WalkEvent, Detail> {
  const command = reader.be16('command');
  const length = reader.be16('command length');
  const format = commands[command];
  const data = reader.bytes(length, `data of command ${command}`);
  const name = format?.name ?? `COMMAND ${command}`;
  if (!format) {
    yield report('error', 'command', at, '', `unknown command ${command}, ${length} bytes skipped`);
  } else if (format.length && !format.length.includes(length)) {
    yield report('error', 'command-length', at, name, 'length of a command', {
      expected: format.length.join(' or '),
      found: String(length),
    });
  }
  let detail: Detail = {};
  try {
    if (!format?.length || format.length.includes(length)) detail = commandDetail(command, data);
  } catch (err) {
    const wrong = badForm(err);
    if (wrong === undefined) throw err;
    yield report('error', 'command-data', at, name, `data of a command: ${wrong}`, {
      found: data.subarray(0, 32).toString('hex'),
    });
  }
  yield {
    type: 'command',
    offset: BigInt(at),
    command,
    name,
    size: reader.position - at,
    ...(Object.keys(detail).length > 0 && { data: detail }),
  };
  return command === postcopyRun ? { ...detail, postcopyRun: true } : detail;
}
