/** Where a configuration listens: the listeners that it needs, those that are there, and the way from one to the other. */
import { VioError } from '../../../common/errors.js';
import { type Place, placeText } from '../../../common/text/place.js';
import { discoveryPort } from '../../wire/index.js';
import { discoveryPortAsked, type Listener, sameAddress } from '../discovery.js';
import { checkChoice, type TlsChoice } from '../security/tls.js';
import type { TargetConfig } from '../serve/config.js';
import { addressesOf, notHere, parseListen } from '../serve/listen.js';
import { type BoundSocket, bindSocket, endSocket } from '../sockets.js';
import type { Target, TargetLog } from '../target.js';
import { askedText } from './live.js';

/** A listener that a configuration needs. */
export interface WantedListener extends Place {
  /** As the configuration has it; 0 is any port. */
  port: number;
  discoveryOnly: boolean;
  advertise?: Place | undefined;
  /** TLS, if it is not the target's. */
  tls?: TlsChoice | undefined;
  asked: string;
  /** What the configuration says once: all addresses of a name have one port. */
  place: Place | undefined;
  /** Done without if it cannot be: an address of a name that this machine does not have, or a port that nobody asked for. */
  optional: 'not here' | 'taken' | undefined;
}

/** Where a target listens that is not told where. */
export const defaultListen = ['127.0.0.1:4420'];

/** The listeners that a configuration needs. @throws VioError for a name that cannot be looked up */
export async function wantedListeners(config: TargetConfig): Promise<WantedListener[]> {
  const wanted: WantedListener[] = [];
  const add = async (text: string, discoveryOnly: boolean): Promise<void> => {
    const { advertise, tls, ...place } = parseListen(text);
    const addresses = await addressesOf(place);
    const optional = addresses.length > 1 ? 'not here' : undefined;
    for (const address of addresses)
      wanted.push({
        address,
        port: place.port,
        discoveryOnly,
        advertise,
        tls,
        optional,
        asked: askedText(place, { advertise, tls }),
        place,
      });
  };
  for (const text of config.listen ?? defaultListen) await add(text, false);
  for (const text of config.listenDiscovery ?? []) await add(text, true);
  return [...wanted, ...discoveryPorts(wanted, config)];
}

/**
 * Discovery on a port of its own too, on every address or on those that are named. Port 8009, which nobody asked for, is done
 * without where it is taken or not permitted, and left alone where the ports are free ones: then the target is one of several, or
 * a test.
 */
function discoveryPorts(at: readonly WantedListener[], { discoveryPort: asked, discoveryAddresses }: TargetConfig): WantedListener[] {
  const listening = at.filter(({ discoveryOnly }) => !discoveryOnly);
  if (asked === 'none' || (asked === undefined && listening.some(({ port }) => port === 0))) return [];
  const port = asked ?? discoveryPort;
  const optional = asked === undefined ? 'taken' : undefined;
  return [...new Set(discoveryAddresses ?? listening.map(({ address }) => address))]
    .filter((address) => port === 0 || !at.some((one) => one.address === address && one.port === port))
    .map((address) => ({ address, port, discoveryOnly: true, asked: discoveryPortAsked, place: undefined, optional }));
}

/** Whether a listener is what is wanted. */
const fits = (listener: Listener, wanted: WantedListener, asked: string): boolean =>
  asked === wanted.asked &&
  listener.address === wanted.address &&
  (wanted.port === 0 || listener.port === wanted.port) &&
  (listener.discoveryOnly ?? false) === wanted.discoveryOnly;

/** What a running target lacks, and what it has too much. @param askedOf what each listener was asked for by */
export function compareListeners(target: Target, wanted: readonly WantedListener[], askedOf: (listener: Listener) => string): Comparison {
  const surplus = [...target.listeners];
  const missing = wanted.filter((one) => {
    const at = surplus.findIndex((listener) => fits(listener, one, askedOf(listener)));
    if (at >= 0) surplus.splice(at, 1);
    return at < 0;
  });
  const renamed: Comparison['renamed'] = [];
  const rest = missing.filter((one) => {
    const at = one.port === 0 ? -1 : surplus.findIndex((listener) => sameSocket(listener, one));
    if (at >= 0) renamed.push({ listener: surplus.splice(at, 1)[0]!, wanted: one });
    return at < 0;
  });
  return { missing: rest, renamed, surplus: surplus.filter(({ activated }) => !activated) };
}

/** Whether a listener becomes what is wanted without another socket. */
const sameSocket = ({ address, port, discoveryOnly = false }: Listener, wanted: WantedListener): boolean =>
  address === wanted.address && port === wanted.port && discoveryOnly === wanted.discoveryOnly;

/** What a target lacks, what hosts are to be told in another way, and what it has too much. */
export interface Comparison {
  missing: WantedListener[];
  renamed: { listener: Listener; wanted: WantedListener }[];
  surplus: Listener[];
}

/** Sockets that came with the start: a service manager opened them, or kept them from an earlier run. */
export interface GivenSocket extends Place {
  socket: BoundSocket;
  /** What the service manager calls it. */
  name: string;
  /** The server itself had it kept: it is of no use if the configuration does not ask for it any more. */
  kept: boolean;
}

/** Listens on sockets that a service manager has opened although the configuration does not name them; closes those it has kept. */
export function takeRest(target: Target, given: GivenSocket[]): void {
  for (const { kept, socket, address, port } of given.splice(0)) {
    if (kept) socket.fd.close();
    else target.listen(address, port, false, undefined, { socket, asked: placeText({ address, port }) });
  }
}

/** Ports that places have got: all addresses of a name have one. */
export type PortsOfPlaces = Map<Place | undefined, number>;

/** A socket for a listener: one that was given, or a new one. @throws VioError */
export function socketFor(wanted: WantedListener, given: GivenSocket[], ports: PortsOfPlaces): BoundSocket {
  const port = ports.get(wanted.place) ?? wanted.port;
  const at = given.findIndex((one) => sameAddress(one.address, wanted.address) && one.port === port);
  const socket = at >= 0 ? given.splice(at, 1)[0]!.socket : bindSocket(wanted.address, port);
  if (wanted.place) ports.set(wanted.place, socket.port);
  return socket;
}

/** Whether a listener that cannot be is done without; says so for a port that nobody asked for. */
export function doneWithout(wanted: WantedListener, err: unknown, log: TargetLog): boolean {
  if (wanted.optional === 'not here') return notHere(err);
  if (wanted.optional !== 'taken' || !(err instanceof VioError)) return false;
  log(`no discovery on its own port: ${err.message}`);
  return true;
}

/** Ends kept sockets that the configuration does not want any more: they would keep their ports. */
function endUnwanted(given: GivenSocket[], all: readonly WantedListener[]): void {
  const same = (one: GivenSocket, at: Place): boolean => one.port === at.port && sameAddress(one.address, at.address);
  for (const one of given.filter(({ kept }) => kept)) {
    if (all.some((wanted) => same(one, wanted))) continue;
    given.splice(given.indexOf(one), 1);
    if (given.some((other) => !other.kept && same(other, one))) one.socket.fd.close();
    else endSocket(one.socket);
  }
}

/** Listens at all places of a configuration that is served for the first time. @throws VioError */
export async function listenAll(target: Target, config: TargetConfig, given: GivenSocket[], log: TargetLog): Promise<void> {
  const ports: PortsOfPlaces = new Map();
  const refused = new Map<string, unknown>();
  const all = await wantedListeners(config);
  endUnwanted(given, all);
  for (const wanted of all) {
    checkChoice(wanted.tls, target.keys);
    let socket: BoundSocket;
    try {
      socket = socketFor(wanted, given, ports);
    } catch (err) {
      if (!doneWithout(wanted, err, log)) throw err;
      refused.set(wanted.asked, err);
      continue;
    }
    listenOn(target, wanted, socket);
  }
  for (const [asked, err] of refused) if (asked !== discoveryPortAsked && !target.listeners.some((one) => one.asked === asked)) throw err; // no address of a name is here
}

export function listenOn(target: Target, wanted: WantedListener, socket: BoundSocket): Listener {
  const { address, port, discoveryOnly, advertise, asked, tls } = wanted;
  return target.listen(address, port, discoveryOnly, advertise, { asked, socket, tls });
}
