/** Faults that the proxy can inject, and the little language of --fault. */
import { usage } from '../../common/errors.js';
import { parseDuration } from '../../common/units.js';
import { capsuleResp, cqe, encodeStatus, PduFlag, pdus } from '../wire/index.js';
import type { PduRecord } from './decode.js';

/** What is done to a PDU that a rule matches. */
export type Action =
  | { kind: 'delay'; ms: number }
  | { kind: 'drop' }
  | { kind: 'hdgst' }
  | { kind: 'ddgst' }
  | { kind: 'status'; sct: number; sc: number };

/** One rule: an action and the PDUs it is for. */
export interface FaultRule {
  text: string;
  action: Action;
  dir?: 'h2c' | 'c2h';
  /** PDU type: R2T, C2HData, … */
  type?: string;
  /** Command name: read, identify, fabrics connect, … */
  command?: string;
  /** Queue: 0 is the admin queue. */
  qid?: number;
  /** Matches passed over first. */
  after: number;
  /** Every n-th match. */
  every: number;
  /** Times it acts; then it is spent. */
  count: number;
  seen: number;
  done: number;
}

const typeNames = Object.values(pdus).map((rule) => rule.name);
const help = 'ACTION[,KEY=VALUE]…: delay:TIME, drop, hdgst, ddgst, status:[SCT/]SC; keys dir, type, command, qid, after, every, count';

function parseAction(text: string): Action {
  const [name, arg] = text.split(/:(.*)/s) as [string, string | undefined];
  if (name === 'delay' && arg !== undefined) return { kind: 'delay', ms: parseDuration(arg) };
  if ((name === 'drop' || name === 'hdgst' || name === 'ddgst') && arg === undefined) return { kind: name };
  const status = name === 'status' ? /^(?:([0-7])\/)?([0-9a-fA-F]{1,2})h?$/.exec(arg ?? '') : null;
  if (!status) throw usage(`not a fault: "${text}"`, help);
  return { kind: 'status', sct: Number(status[1] ?? 0), sc: Number.parseInt(status[2]!, 16) };
}

/** Parses one --fault. @throws usage error */
export function parseFault(text: string): FaultRule {
  const [action, ...keys] = text.split(',') as [string, ...string[]];
  const rule: FaultRule = { text, action: parseAction(action), after: 0, every: 1, count: Number.POSITIVE_INFINITY, seen: 0, done: 0 };
  for (const item of keys) {
    const [key, value] = item.split(/=(.*)/s) as [string, string | undefined];
    const number = /^[0-9]{1,9}$/.test(value ?? '') ? Number(value) : undefined;
    if (key === 'dir' && (value === 'h2c' || value === 'c2h')) rule.dir = value;
    else if (key === 'type' && typeNames.includes(value as 'R2T')) rule.type = value!;
    else if (key === 'command' && value) rule.command = value;
    else if (key === 'qid' && number !== undefined) rule.qid = number;
    else if ((key === 'after' || key === 'every' || key === 'count') && number !== undefined && (key === 'after' || number > 0))
      rule[key] = number;
    else throw usage(`not a part of a fault: "${item}"`, key === 'type' ? `types are ${typeNames.join(', ')}` : help);
  }
  return rule;
}

/** True when the rule acts on this PDU; counts it. Actions that cannot apply (no digest, no completion) do not match. */
export function applies(rule: FaultRule, record: PduRecord, flags: number): boolean {
  const { action } = rule;
  if (rule.dir !== undefined && rule.dir !== record.dir) return false;
  if (rule.type !== undefined && rule.type !== record.type) return false;
  if (rule.command !== undefined && rule.command !== record.command) return false;
  if (rule.qid !== undefined && rule.qid !== record.qid) return false;
  if (action.kind === 'hdgst' && !(flags & PduFlag.hdgst)) return false;
  if (action.kind === 'ddgst' && !(flags & PduFlag.ddgst)) return false;
  if (action.kind === 'status' && record.type !== 'CapsuleResp') return false;
  const seen = rule.seen++;
  if (seen < rule.after || (seen - rule.after) % rule.every !== 0 || rule.done >= rule.count) return false;
  rule.done++;
  return true;
}

/** Changes a PDU as an action says. @returns how long to hold it back, or undefined where it is dropped */
export function act(action: Action, pdu: Buffer, crc32c: (bytes: Uint8Array) => number): number | undefined {
  const hlen = pdu.readUInt8(2);
  switch (action.kind) {
    case 'delay':
      return action.ms;
    case 'drop':
      return undefined;
    case 'hdgst':
      pdu.writeUInt32LE((pdu.readUInt32LE(hlen) ^ 1) >>> 0, hlen);
      return 0;
    case 'ddgst':
      pdu.writeUInt32LE((pdu.readUInt32LE(pdu.length - 4) ^ 1) >>> 0, pdu.length - 4);
      return 0;
    case 'status':
      cqe.set(pdu, 'status', encodeStatus(action), 8);
      if (pdu.readUInt8(1) & PduFlag.hdgst) pdu.writeUInt32LE(crc32c(pdu.subarray(0, capsuleResp.size)), capsuleResp.size);
      return 0;
  }
}
