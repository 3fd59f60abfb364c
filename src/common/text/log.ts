/** Messages of servers about what their peers do: what they are about, how they are written, and how many there may be. */
import { harmless, printable } from '../escape.js';
import { toJson } from '../json.js';

/** What a message is about. Names are as the peer gave them: they are escaped when the message is written. */
export interface About {
  /** What happened, in one word that programs can rely on. */
  event: string;
  /** Address and port of the peer, as `192.0.2.1 port 4420`. Its messages are counted by the address. */
  peer?: string | undefined;
  /** NQN of the host. */
  host?: string | undefined;
  /** NQN of the subsystem. */
  subsystem?: string | undefined;
  /** Identifier of the controller. */
  controller?: number | undefined;
  /** Socket of the disk of a vhost-user server. */
  socket?: string | undefined;
}

/** Takes a message for whoever runs the server. Names from peers in its text went through nameText(). */
export type Log = (message: string, about?: About) => void;

/** Ways to write messages. */
export const logFormats = ['text', 'json'] as const;
export type LogFormat = (typeof logFormats)[number];

/** A name that a peer gave, for a text: in quotes unless it is plain visible ASCII, so that it cannot pass for words of ours. */
export const nameText = (name: string): string => (/^[!#-[\]-~]+$/.test(name) ? name : `"${printable(name).replaceAll('"', '\\"')}"`);

/** Event of a message that is about nothing in particular. */
const plainEvent = 'message';

/** One line without its end. */
export function logLine(format: LogFormat, message: string, about: About | undefined, time: Date): string {
  if (format === 'text') return harmless(message);
  const { event = plainEvent, ...rest } = about ?? {};
  const known = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  // what a terminal may act on is escaped in JSON too
  return toJson({ time: time.toISOString(), event, ...known, message }).replace(
    /[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** A log whose lines go to `write`. */
export const logTo =
  (format: LogFormat, write: (line: string) => void): Log =>
  (message, about) =>
    write(logLine(format, message, about, new Date()));

/** Messages about one peer in one period (ms): a guest can break a ring, a host can connect, again and again. */
const mostLines = 50;
const period = 10_000;
/** Messages about all peers of a server in one period. */
const mostInAll = 500;
/** Peers that are counted apart. Those beyond, until one of these has been silent for a period, are counted as one. */
const mostPeers = 1024;

/** How many messages may still pass. */
class Allowance {
  readonly #most: number;
  readonly #now: () => number;
  readonly #about: string;
  #since: number;
  #lines = 0;

  constructor(most: number, now: () => number, about = '') {
    this.#most = most;
    this.#now = now;
    this.#about = about;
    this.#since = now();
  }

  /** Nothing was counted for a period, so that it can be forgotten. */
  get over(): boolean {
    return this.#now() - this.#since >= period;
  }

  /** Whether a message passes. @param tell takes what is to be said about those that do not */
  take(tell: (text: string) => void): boolean {
    if (this.over) {
      if (this.#lines > this.#most) tell(`${this.#lines - this.#most} more messages${this.#about}`);
      [this.#since, this.#lines] = [this.#now(), 0];
    }
    if (++this.#lines <= this.#most) return true;
    if (this.#lines === this.#most + 1) tell(`further messages${this.#about} are left out for up to ${period / 1000} s`);
    return false;
  }
}

/** Passes on a bounded number of lines, and says how many it left out. */
export function bounded(log: (text: string) => void, now: () => number = () => performance.now()): (text: string) => void {
  const allowance = new Allowance(mostLines, now);
  return (text) => {
    if (allowance.take(log)) log(text);
  };
}

/** The same for the messages about each peer, by its address, and about all of them; those about no peer always pass. */
export function boundedByPeer(log: Log, now: () => number = () => performance.now()): Log {
  const all = new Allowance(mostInAll, now, ' about peers');
  const others = new Allowance(mostLines, now, ' about many peers');
  const peers = new Map<string, Allowance>();
  const allowanceOf = (address: string): Allowance => {
    const known = peers.get(address);
    if (known) return known;
    if (peers.size >= mostPeers) for (const [one, allowance] of peers) if (allowance.over) peers.delete(one);
    if (peers.size >= mostPeers) return others;
    const fresh = new Allowance(mostLines, now, ` about ${address}`);
    peers.set(address, fresh);
    return fresh;
  };
  return (message, about) => {
    if (about?.peer === undefined) return log(message, about);
    const address = about.peer.replace(/ port \d+$/, '');
    const tell = (text: string) => log(text, { event: 'left-out', peer: address });
    if (allowanceOf(address).take(tell) && all.take(tell)) log(message, about);
  };
}
