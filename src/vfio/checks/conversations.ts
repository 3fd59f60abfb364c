import { printable } from '../../common/escape.js';
import { counted } from '../../common/units.js';
import type { Census } from '../census/census.js';
import type { Conversation } from '../census/conversations.js';
import { routesTo } from '../census/interfaces.js';
import type { Finding } from './finding.js';

/** Conversations named in one finding. */
const most = 3;

/** True if a conversation goes over an interface or what is stacked on it. */
function goesOver(census: Census, { device, local, peer }: Conversation, stack: ReadonlySet<string>): boolean {
  if (device !== undefined) return stack.has(device);
  const owners = local === undefined ? [] : (census.owners.get(local) ?? []);
  if (owners.length > 0) return owners.some((name) => stack.has(name));
  // an address that no interface has: of a tree of files, or one that is gone
  return peer !== undefined && routesTo(census.routes, peer).some((route) => stack.has(route.device));
}

/** Sessions, connections and sockets that would break with an interface: what a person wants to know before it goes. */
export function conversationFindings(census: Census, name: string, stack: ReadonlySet<string>): Finding[] {
  const mine = census.conversations.filter((one) => goesOver(census, one, stack));
  const found: Finding[] = [];
  const add = (brief: string, message: string, fix: string | undefined) =>
    found.push({ check: 'session', subject: name, brief, message: `${message} ${name}`, fix });
  const several = (kind: Conversation['kind'], noun: string, verb: string) => {
    const list = mine.filter((one) => one.kind === kind);
    if (list.length === 0) return;
    const count = counted(list.length, noun);
    const some = list.slice(0, most).map(({ what }) => what);
    const verbs = list.length === 1 ? `${verb}s` : verb;
    add(count, `${count} (${some.join(', ')}${list.length > most ? ', …' : ''}) ${verbs} over`, undefined);
  };
  for (const { what, peer } of mine.filter(({ kind }) => kind === 'session')) {
    const shown = printable(what);
    add(shown.replace(/^the /, ''), `${shown}${peer === undefined ? '' : ` with ${printable(peer)}`} runs over`, 'end the session');
  }
  for (const { what } of mine.filter(({ kind }) => kind === 'target'))
    add(printable(what).replace(/^the /, ''), `${printable(what)} listens on an address of`, undefined);
  for (const { what } of mine.filter(({ kind }) => kind === 'packet' || kind === 'xdp'))
    add(what, `there is ${what.replace(/^1 /, 'a ')} on`, undefined);
  several('tcp', 'TCP connection', 'run');
  several('listen', 'TCP listener', 'run');
  return found;
}
