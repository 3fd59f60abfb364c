import type { Engine } from '../common/engines.js';
import { usage } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { native } from '../native/index.js';
import { explain } from '../uring/host/unavailable.js';
import type { Source } from './open.js';
import type { SourceOptions } from './source.js';

let told = false;
let toldBuffers = false;

/**
 * Tells the log why threads do the I/O although io_uring may, or why a ring has no registered buffers: each once in the life of the
 * process, whoever met it first. Call it at the start, and again from time to time: a limit may be reached later.
 */
export function tellRefusal(engine: Engine, log: (text: string) => void): void {
  if (engine === 'sync') return;
  const pinning = native().storage.bufferRefusal();
  if (pinning !== undefined && !toldBuffers) {
    toldBuffers = true;
    log(`io_uring buffers are not registered, so each direct request costs more: io_uring_register: ${pinning} (${explain(pinning).why})`);
  }
  if (told) return;
  const refusal = native().storage.ringRefusal();
  if (!refusal) return;
  told = true;
  const { syscall, code } = refusal;
  log(`io_uring is not available, so threads do the I/O: ${syscall}: ${code} (${explain(code).why})`);
}

/** @throws usage error for a source that wants io_uring or nothing from a server that has no ring */
export function checkEngine({ source, engine }: SourceOptions, server: Engine | undefined): void {
  if (engine !== 'uring' || server !== 'sync') return;
  throw usage(`${printable(source)}: engine=uring cannot be: the engine of the server is sync`, 'leave one of the two out');
}

/** Tells the log that threads do the I/O of a source although io_uring works. Call it once for a source. */
export function tellWithoutRing({ name, geometry }: Source, engine: Engine, log: (text: string) => void): void {
  if (geometry.withoutRing === undefined || engine === 'sync') return;
  log(`${printable(name)}: threads do its I/O: io_uring continues short transfers at the wrong offset on ${geometry.withoutRing}`);
}
