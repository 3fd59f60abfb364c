import { errnoText } from '../../common/errno.js';

/** What happens to a remote source, by the words of the addon (Remote::Tell). */
const texts: Readonly<Record<string, string>> = {
  lost: 'the connection is lost; requests wait',
  silent: 'no answer in time: the connection is given up',
  down: 'still away: requests fail until it is back',
  back: 'connected again',
  changed: 'the server has another disk by this name now: it is not used',
  replayed: 'connected again; writes that the server may have lost were written again',
  fenced: 'another client has taken it over, or an operator has fenced this one: every request fails until it is opened anew',
  refused: 'cannot be connected again',
};

/** A line for the log. */
export const newsText = (what: string, error: string): string =>
  `${texts[what] ?? what}${error === '' ? '' : ` (${error}: ${errnoText(error) ?? 'unknown'})`}`;
