/** Command lines of `nvmf ctl` as requests. */
import { usage } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { readConfigText } from '../../../common/text/document.js';
import { parseDecimal } from '../../../common/units.js';
import { limitWords } from '../../../storage/limits.js';
import { limitNumbers } from '../admission/limits.js';
import type { TlsChoice } from '../security/tls.js';
import { parseSource } from './config.js';
import type { ControlRequest, LimitNumbers } from './requests.js';

export type ControlAction = ControlRequest['op'];

/** Options of `nvmf ctl` by the names of its flags. */
export interface ControlFlags {
  nqn?: string | undefined;
  host?: string | undefined;
  cntlid?: number | undefined;
  group?: number | undefined;
  advertise?: string | undefined;
  tls?: TlsChoice | undefined;
  'discovery-only'?: boolean | undefined;
  'allow-host'?: string[] | undefined;
  'block-size'?: number | undefined;
  'read-only'?: boolean | undefined;
  force?: boolean | undefined;
  'dry-run'?: boolean | undefined;
  check?: boolean | undefined;
  timeout: number;
}

type Verb = (operands: readonly string[], flags: ControlFlags, nqn: { nqn?: string }) => ControlRequest;

const numberOf = (text: string | undefined, what: string): number => {
  const value = parseDecimal(text);
  if (text === undefined) throw usage(`missing argument: ${what}`);
  if (value === undefined) throw usage(`${what}: not a number: "${printable(text)}"`);
  return value;
};

/** What an action is about, among the words that may follow it. @throws usage error */
function subaction<T extends string>(action: string, word: string | undefined, known: readonly T[]): T {
  const found = known.find((one) => one === word);
  if (!found) {
    const takes = `${action} takes ${known.slice(0, -1).join(', ')} or ${known.at(-1)}`;
    throw usage(word === undefined ? takes : `${takes}, not "${printable(word)}"`, `vioctl nvmf ctl SOCK ${action} ${known[0]} …`);
  }
  return found;
}

function atMost(action: string, operands: readonly string[], most: number): void {
  if (operands.length > most) throw usage(`${action}: too many arguments: "${printable(operands[most]!)}"`);
}

/** An operand that must be there. @throws usage error */
function needed(action: string, operand: string | undefined, what: string, example: string): string {
  if (operand === undefined) throw usage(`${action}: ${what}?`, `vioctl nvmf ctl SOCK ${action} ${example}`);
  return operand;
}

const onNamespace =
  (op: 'resize' | 'reopen'): Verb =>
  (operands, _, nqn) => {
    atMost(op, operands, 1);
    return { op, ...nqn, nsid: numberOf(operands[0], 'NSID') };
  };

const add: Verb = (operands, flags, nqn) => {
  atMost('add', operands, 1);
  const [source] = operands;
  if (source === undefined && !flags['allow-host']) throw usage('add: no source', 'vioctl nvmf ctl SOCK add FILE');
  const defaults = {
    ...(flags['block-size'] && { blockSize: flags['block-size'] }),
    ...(flags['read-only'] && { readonly: true }),
    ...(flags.force && { force: true }),
  };
  return {
    op: 'add',
    ...nqn,
    ...(source !== undefined && { namespace: parseSource(source, defaults) }),
    ...(flags['allow-host'] && { allowHosts: flags['allow-host'] }),
  };
};

const remove: Verb = ([nsid, ...more], flags, nqn) => {
  atMost('remove', more, 0);
  if (nsid === undefined && flags.nqn === undefined) throw usage('remove: which namespace, or --nqn which subsystem?');
  return { op: 'remove', ...nqn, ...(nsid !== undefined && { nsid: numberOf(nsid, 'NSID') }) };
};

const mask: Verb = ([nsid, ...hosts], _, nqn) => {
  const number = numberOf(nsid, 'NSID');
  needed('mask', hosts[0], 'which hosts see the namespace', '1 NQN…, 1 any, or 1 none');
  const [word] = hosts;
  if (word !== 'any' && word !== 'none') return { op: 'mask', ...nqn, nsid: number, hosts };
  atMost('mask', hosts, 1);
  return { op: 'mask', ...nqn, nsid: number, ...(word === 'none' && { hosts: [] }) };
};

const host: Verb = ([word, ...operands], _, nqn) => {
  const action = subaction('host', word, ['add', 'remove', 'any'] as const);
  if (action !== 'any') {
    needed(`host ${action}`, operands[0], 'which hosts', 'NQN…');
    return { op: 'host', action, ...nqn, hosts: [...operands] };
  }
  atMost('host any', operands, 1);
  const [on = 'on'] = operands;
  if (on !== 'on' && on !== 'off') throw usage(`host any: on or off: "${on}"`);
  return { op: 'host', action, ...nqn, any: on === 'on' };
};

const listener: Verb = ([word, ...operands], flags, nqn) => {
  const action = subaction('listener', word, ['add', 'remove', 'ana'] as const);
  const at = needed(`listener ${action}`, operands[0], 'which address', `192.0.2.1:4420${action === 'ana' ? ' inaccessible' : ''}`);
  atMost(`listener ${action}`, operands, action === 'ana' ? 2 : 1);
  if (action === 'remove') return { op: 'listener', action, at };
  if (action === 'add')
    return {
      op: 'listener',
      action,
      at,
      ...(flags['discovery-only'] && { discoveryOnly: true }),
      ...(flags.advertise !== undefined && { advertise: flags.advertise }),
      ...(flags.tls !== undefined && { tls: flags.tls }),
    };
  const state = needed('listener ana', operands[1], 'which state', `${at} inaccessible`);
  return { op: 'listener', action, at, ...nqn, ...(flags.group !== undefined && { group: flags.group }), state };
};

const referral: Verb = ([word, ...operands], _, nqn) => {
  const action = subaction('referral', word, ['add', 'remove'] as const);
  const at = needed(`referral ${action}`, operands[0], 'to which address', '192.0.2.1:8009');
  atMost(`referral ${action}`, operands, 1);
  return action === 'add' ? { op: 'referral', action, at, ...nqn } : { op: 'referral', action, at };
};

const nulls = (limits: Record<string, number | undefined>): LimitNumbers =>
  Object.fromEntries(Object.entries(limits).map(([name, value]) => [name, value ?? null]));

const limits: Verb = (operands, flags, nqn) => {
  const [first] = operands;
  if (first === undefined) throw usage('limits: which ones?', 'vioctl nvmf ctl SOCK limits 1 iops=1000');
  if (flags.host !== undefined)
    return { op: 'limits', host: flags.host, numbers: nulls(limitNumbers(operands, ['connections', 'queues', 'bytes'])) };
  if (first.includes('=')) return { op: 'limits', target: nulls(limitNumbers(operands, ['controllers', 'connections', 'queues'])) };
  return { op: 'limits', ...nqn, nsid: numberOf(first, 'NSID'), limits: limitWords(operands.slice(1)) };
};

const ana: Verb = ([group, state, ...more], _, nqn) => {
  atMost('ana', more, 0);
  if (state === undefined) throw usage('ana: GROUP and STATE are needed', 'vioctl nvmf ctl SOCK ana 1 inaccessible');
  return { op: 'ana', ...nqn, group: numberOf(group, 'GROUP'), state };
};

const kick: Verb = (operands, flags, nqn) => {
  atMost('kick', operands, 0);
  if (flags.host === undefined && flags.cntlid === undefined && flags.nqn === undefined)
    throw usage('kick: whom?', '--host NQN, --cntlid N or --nqn NQN');
  return {
    op: 'kick',
    ...nqn,
    ...(flags.host !== undefined && { host: flags.host }),
    ...(flags.cntlid !== undefined && { cntlid: flags.cntlid }),
  };
};

const keys: Verb = ([word, ...more]) => {
  atMost('keys', more, 0);
  if (word !== 'rotate') throw usage('keys: rotate is the only action', 'vioctl nvmf ctl SOCK keys rotate');
  return { op: 'keys', action: 'rotate' };
};

/** What is left of the time of a drain for its answer, in milliseconds. */
const answerTime = 500;

const drain: Verb = ([word, ...more], flags, nqn) => {
  atMost('drain', more, 0);
  if (word !== undefined && word !== 'off') throw usage(`drain: nothing, or off: "${word}"`);
  return { op: 'drain', ...nqn, ...(word === 'off' && { off: true }), wait: Math.max(flags.timeout - answerTime, 0) };
};

const bare =
  (op: 'list' | 'stats' | 'save'): Verb =>
  (operands) => {
    atMost(op, operands, 0);
    return { op };
  };

const load: Verb = ([file, ...more], flags) => {
  needed('load', file, 'which file', 'nvmf.json');
  atMost('load', more, 0);
  return { op: 'load', ...readConfigText(file!), ...(flags.check && { dryRun: true }) };
};

const verbs: Readonly<Record<ControlAction, Verb>> = {
  list: bare('list'),
  stats: bare('stats'),
  add,
  remove,
  resize: onNamespace('resize'),
  reopen: onNamespace('reopen'),
  mask,
  host,
  listener,
  referral,
  limits,
  ana,
  keys,
  kick,
  drain,
  save: bare('save'),
  load,
};

/** Names of all actions, in the order of the help. */
export const controlActions = Object.keys(verbs) as ControlAction[];

/** Options of single actions: with others they would be ignored. */
const flagsOf: Readonly<Partial<Record<keyof ControlFlags, readonly ControlAction[]>>> = {
  host: ['kick', 'limits'],
  cntlid: ['kick'],
  group: ['listener'],
  advertise: ['listener'],
  tls: ['listener'],
  'discovery-only': ['listener'],
  'allow-host': ['add'],
  'block-size': ['add'],
  'read-only': ['add'],
  force: ['add'],
  check: ['load'],
};

/** The request of a command line. @throws usage error */
export function controlRequest(action: ControlAction, operands: readonly string[], flags: ControlFlags): ControlRequest {
  for (const [flag, actions] of Object.entries(flagsOf))
    if (flags[flag as keyof ControlFlags] && !actions.includes(action)) throw usage(`--${flag} goes with ${actions.join(' and ')}`);
  const request = verbs[action](operands, flags, flags.nqn === undefined ? {} : { nqn: flags.nqn });
  return flags['dry-run'] && request.op !== 'list' && request.op !== 'stats' && request.op !== 'save'
    ? { ...request, dryRun: true }
    : request;
}
