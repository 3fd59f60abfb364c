import { errnoText } from '../../common/errno.js';
import type { Store } from '../../native/storage.js';

/** What happens to a remote source, by the words of the addon (Remote::Tell). */
const texts: Readonly<Record<string, string>> = {
  lost: 'the connection is lost; requests wait',
  silent: 'no answer in time: the connection is given up',
  down: 'still away: requests fail until it is back',
  back: 'connected again',
  loop: 'the target there serves this one by now: it is not used',
  changed: 'the server has another disk by this name now: it is not used',
  replayed: 'connected again; writes that the server may have lost were written again',
  fenced: 'another client has taken it over, or an operator has fenced this one: every request fails until it is opened anew',
  refused: 'cannot be connected again',
};

/** A line for the log. */
export const newsText = (what: string, error: string): string =>
  `${texts[what] ?? what}${error === '' ? '' : ` (${error}: ${errnoText(error) ?? 'unknown'})`}`;

/** Lines for the log of a source that JavaScript itself has. */
const notes = new WeakMap<Store, string[]>();
const maxNotes = 100;

/** Adds a line to the log of a source; what is too much is left out. */
export function note(store: Store, line: string): void {
  const lines = notes.get(store) ?? [];
  notes.set(store, lines);
  if (lines.length < maxNotes) lines.push(line);
}

/** What note() has added since the last call. */
export const takeNotes = (store: Store): string[] => notes.get(store)?.splice(0) ?? [];
