/** Requests of `nvmf ctl`; answers.ts has what they are answered with. */
import type { LimitTexts } from '../../../storage/limits.js';
import type { NamespaceOptions } from '../model.js';
import type { TlsChoice } from '../security/tls.js';

/** Limits as JSON has them: null lifts one. */
export type LimitNumbers = Record<string, number | null>;

/** A request that changes something. */
export type ChangeRequest =
  | { op: 'add'; nqn?: string; namespace?: NamespaceOptions; allowHosts?: string[] }
  | { op: 'remove'; nqn?: string; nsid?: number }
  | { op: 'resize'; nqn?: string; nsid: number }
  | { op: 'reopen'; nqn?: string; nsid: number }
  /** hosts left out: all of the subsystem */
  | { op: 'mask'; nqn?: string; nsid: number; hosts?: string[] }
  | { op: 'host'; action: 'add' | 'remove'; nqn?: string; hosts: string[] }
  | { op: 'host'; action: 'any'; nqn?: string; any: boolean }
  /** `at`: ADDRESS:PORT as in --listen */
  | { op: 'listener'; action: 'add'; at: string; discoveryOnly?: boolean; advertise?: string; tls?: TlsChoice }
  | { op: 'listener'; action: 'remove'; at: string }
  | { op: 'listener'; action: 'ana'; at: string; nqn?: string; group?: number; state: string }
  | { op: 'referral'; action: 'add'; at: string; nqn?: string }
  | { op: 'referral'; action: 'remove'; at: string }
  | { op: 'limits'; nqn?: string; nsid: number; limits: LimitTexts }
  | { op: 'limits'; nsid?: undefined; target: LimitNumbers }
  | { op: 'limits'; nsid?: undefined; target?: undefined; host: string; numbers: LimitNumbers }
  | { op: 'ana'; nqn?: string; group: number; state: string }
  /** reads the files of all keys again */
  | { op: 'keys'; action: 'rotate' }
  | { op: 'kick'; nqn?: string; host?: string; cntlid?: number }
  /** the text of a configuration; folder of its relative names */
  | { op: 'load'; text: string; name: string; folder: string }
  /** wait in milliseconds */
  | { op: 'drain'; nqn?: string; off?: boolean; wait: number };

export type ControlRequest =
  | { op: 'list' }
  | { op: 'stats' }
  | { op: 'save' }
  | (ChangeRequest & { /** All checks, and nothing done. */ dryRun?: boolean });
