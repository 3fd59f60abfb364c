import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { limits } from '../stream/format.js';
import type { StreamReader } from '../stream/reader.js';

/** An unlinked temporary file, open for reading and writing; whoever asked owns the descriptor. @throws VioError */
export function temporaryFile(): number {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-'));
  try {
    const file = path.join(dir, 'spool');
    const fd = fs.openSync(file, 'wx+', 0o600);
    fs.unlinkSync(file);
    return fd;
  } catch (err) {
    throw wrap(`temporary file in ${os.tmpdir()}`, err, { hint: 'set TMPDIR to a folder with room' });
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

/**
 * Keeps the rest of a pipe in a temporary file, at the positions it had, so that the description at its end can be read
 * before the devices. The devices of a guest are a few hundred KB; `limits.spool` bounds the file.
 */
export function spool(reader: StreamReader): void {
  const fd = temporaryFile();
  let at = reader.position;
  const start = at;
  for (;;) {
    const taken = reader.take(1 << 20);
    const { bytes } = taken;
    let done = 0;
    while (done < bytes.length) done += fs.writeSync(fd, bytes, done, bytes.length - done, at + done);
    at += bytes.length;
    if (!taken.ok) {
      reader.replace(native().migration.openSource({ fd, kind: 'file', start }), fd, start, taken.end);
      return;
    }
    if (at - start > limits.spool) {
      throw new VioError('more than 4 GiB behind the RAM sections of a pipe', { code: 'SPOOL', hint: 'give the file by name' });
    }
  }
}
