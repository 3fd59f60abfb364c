/** Is a stream whole? */

import type { Input } from '../containers/input.js';
import { pagesOf } from '../stream/model.js';
import { Walker } from '../walk.js';
import { collect, type Dump, elsewhere } from './dump.js';

export type Verdict = 'complete' | 'complete-without-description' | 'memory-elsewhere' | 'truncated' | 'damaged';

export interface Verification {
  /** complete, complete-without-description, memory-elsewhere, truncated or damaged */
  verdict: Verdict;
  /** true if QEMU can load it from these bytes alone */
  complete: boolean;
  /** where a truncated stream ends */
  end?: bigint;
  /** machine type */
  machine?: string;
  /** migration capabilities that the stream names; a destination needs the same */
  capabilities?: string[];
  /** what the stream was wrapped in: a libvirt save file, a qcow2 snapshot, or compressed data */
  container?: Dump['container'];
  /** number of sections */
  sections: number;
  /** number of devices */
  devices: number;
  /** pages of all blocks: expected, present, undecodable */
  ram?: { pages: number; present: number; percent: number; undecodable: number };
  /** pages that the stream does not give, and why */
  missing?: Dump['missing'];
  /** where the stream begins and ends in the file */
  stream: Dump['stream'];
  /** bytes behind the end */
  trailing?: number;
  /** what is wrong with the stream */
  issues: Dump['issues'];
}

/** Issue codes that mean: the stream stops here. */
const ends = new Set(['empty', 'truncated', 'truncated-ram', 'no-eof']);

/** Walks all of a stream, inflates what is compressed, decodes what is described, and judges. */
export async function verify(input: Input, tick: (position: number) => void, force = false): Promise<Verification> {
  const walker = new Walker(input.reader, {
    issues: input.issues,
    fields: true,
    force,
    ram: { check: true, bitmapOrder: input.bitmapOrder },
  });
  // Records are counted, not kept: there may be any number of them.
  const opened = { start: 0, full: 0 };
  const dump = await collect(
    input,
    walker,
    () => false,
    true,
    tick,
    (event) => {
      if (event.type === 'section' && (event.record === 'start' || event.record === 'full')) opened[event.record] += 1;
    },
  );
  const errors = dump.issues.filter((i) => i.severity === 'error');
  const pages = { pages: 0, present: 0, undecodable: 0 };
  for (const block of dump.ram?.blocks ?? []) {
    const count = pagesOf(block, dump.ram!.pageSize);
    pages.pages += count;
    pages.present += block.state.seen - block.state.undecodable;
    pages.undecodable += block.state.undecodable;
  }
  const cut = errors.find((i) => ends.has(i.code));
  let verdict: Verdict = walker.sawDescription ? 'complete' : 'complete-without-description';
  if (elsewhere(walker.missing) || !walker.ram) verdict = 'memory-elsewhere';
  if (errors.length > 0 || !walker.sawEof) verdict = cut && errors.every((i) => ends.has(i.code)) ? 'truncated' : 'damaged';
  return {
    verdict,
    complete: verdict === 'complete' || verdict === 'complete-without-description',
    ...(verdict === 'truncated' && cut && { end: cut.offset }),
    ...(dump.configuration && { machine: dump.configuration.machine }),
    ...(dump.configuration?.capabilities && { capabilities: dump.configuration.capabilities }),
    ...(dump.container && { container: dump.container }),
    sections: opened.start + opened.full,
    devices: opened.full,
    ...(dump.ram && { ram: { ...pages, percent: pages.pages === 0 ? 100 : Math.floor((pages.present / pages.pages) * 10000) / 100 } }),
    ...(dump.missing && { missing: dump.missing }),
    stream: dump.stream,
    ...(dump.trailing !== undefined && { trailing: dump.trailing }),
    issues: dump.issues,
  };
}
