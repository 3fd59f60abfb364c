/** Runs the table against a target. */

import { reason, usage, VioError } from '../../common/errors.js';
import { glob } from '../../common/glob.js';
import type { TlsKey } from '../../native/nvme-host.js';
import { type ChapOptions, Controller, type ControllerOptions, discover, Namespace } from '../host/index.js';
import { chapChallenge, discoveryNqn, identifyController } from '../wire/index.js';
import { Bench, type Facts } from './bench.js';
import type { Case } from './case.js';
import { adminCases } from './cases/admin.js';
import { authCases } from './cases/auth.js';
import { chapCases } from './cases/chap.js';
import { connectCases } from './cases/connect.js';
import { connectionCases } from './cases/connection.js';
import { dataCases } from './cases/data.js';
import { discoveryCases } from './cases/discovery.js';
import { ioCases } from './cases/io.js';
import { pathCases } from './cases/paths.js';
import { tlsCases } from './cases/tls.js';
import { describeOutcome } from './expect.js';
import { Locked } from './locked.js';
import { RawConnection } from './raw.js';

/** The whole table, in order. */
export const allCases: readonly Case[] = [
  ...connectionCases,
  ...connectCases,
  ...authCases,
  ...chapCases,
  ...tlsCases,
  ...adminCases,
  ...discoveryCases,
  ...ioCases,
  ...dataCases,
  ...pathCases,
];

/** What came of one case. */
export interface CaseResult {
  /** identifier of the case, for --only */
  id: string;
  /** what the case does */
  title: string;
  /** section of the specification */
  spec: string;
  verdict: 'ok' | 'differs' | 'skipped';
  /** answers that the specification allows */
  expected: string[];
  /** answer of the target */
  got: string;
  /** after the case, a new host could connect and identify */
  alive: boolean;
  /** duration of the case */
  milliseconds: number;
}

/** No case may hear nothing for longer, in milliseconds. */
const silenceLimit = 30000;
/** No case may take longer, whatever comes: on a busy machine some take minutes. */
const caseLimit = 300000;

/** Cases whose id matches one of the globs (`io*`, `h20?`), or all. @throws usage error when a glob matches none */
export function selectCases(patterns: readonly string[]): Case[] {
  if (patterns.length === 0) return [...allCases];
  const chosen = new Set<Case>();
  for (const pattern of patterns) {
    const matches = glob(pattern);
    const found = allCases.filter(({ id }) => matches(id));
    if (found.length === 0) throw usage(`no case matches "${pattern}"`, 'vioctl nvmf conform --dry-run lists the cases');
    for (const one of found) chosen.add(one);
  }
  return allCases.filter((one) => chosen.has(one));
}

/**
 * Learns what the cases need to know, as an ordinary host.
 * @param discoveryTls the key of TLS for the discovery service
 * @throws VioError when the target does not serve one
 */
export async function learn(options: ControllerOptions, nsid?: number, discoveryTls?: ControllerOptions['tls']): Promise<Facts> {
  const controller = await Controller.connect({ ...options, keepAlive: 0, ioQueues: 1 });
  try {
    const nsids = await controller.namespaces();
    const id = nsid ?? nsids[0];
    if (id === undefined) throw new VioError('the subsystem has no namespace', { code: 'ENXIO' });
    const info = await controller.namespace(id);
    const ns = new Namespace(controller, info);
    await ns.read(0n, Buffer.alloc(info.blockSize));
    const { address, port, subnqn, hostnqn, hostid, tls, chap } = options;
    const facts: Facts = {
      address,
      port,
      subnqn,
      hostnqn,
      hostid,
      identify: controller.identify,
      cap: controller.cap,
      ns: info,
      nsids,
      inCapsule: controller.queues[0]!.inCapsule,
      maxTransfer: controller.maxTransfer,
      ...(tls && { tls: await taken(options, tls) }),
      ...(discoveryTls && { discoveryTls: await taken(options, discoveryTls) }),
      ...(await elsewhere({ ...options, tls: discoveryTls })),
    };
    return chap ? await withChoice(facts, chap) : facts;
  } finally {
    await controller.disconnect();
  }
}

/** The first of these keys that the target takes, or the first one of all. */
async function taken({ address, port, timeout }: ControllerOptions, keys: readonly TlsKey[]): Promise<TlsKey> {
  for (const key of keys)
    try {
      (await RawConnection.open(address, port, timeout, undefined, key)).close();
      return key;
    } catch {} // another one, or none: the cases tell
  return keys[0]!;
}

/** Keys, and what the target chooses if it asks for authentication. @throws VioError */
async function withChoice(facts: Facts, chap: ChapOptions): Promise<Facts> {
  const bench = new Bench({ ...facts, chap });
  try {
    const locked = await Locked.find(bench);
    if (!locked) return bench.facts;
    const { hashid, dhgid } = chapChallenge.decode(await locked.challenge());
    return { ...facts, chap: { ...chap, chosen: { hash: hashid, group: dhgid } } };
  } finally {
    bench.close();
  }
}

/** What the discovery service at the same address tells: whether it is there, and another address of the subsystem. */
async function elsewhere(options: ControllerOptions): Promise<Pick<Facts, 'discovery' | 'other' | 'tlsRequired'>> {
  let records: Awaited<ReturnType<typeof discover>>['records'];
  try {
    ({ records } = await discover({ ...options, subnqn: discoveryNqn, headerDigest: false, dataDigest: false }));
  } catch {
    return { discovery: false }; // none here: the cases about it are left out, and say so
  }
  const ours = records.filter((r) => r.subnqn === options.subnqn && r.trtype === 'tcp');
  const here = (r: (typeof ours)[number]) => r.trsvcid === String(options.port) && r.traddr === options.address;
  // Behind a forwarder another address in the log may be the one that is used: only who finds itself there can tell.
  const found = ours.some(here) ? ours.find((r) => !here(r)) : undefined;
  const other = found && { address: found.traddr, port: Number(found.trsvcid) };
  const treq = ours.find(here)?.treq;
  const tlsRequired = treq && { tlsRequired: treq.startsWith('required') };
  return { discovery: true, ...tlsRequired, ...(other && (await reachable(other)) && { other }) };
}

/** Whether something answers there at once. */
async function reachable(at: { address: string; port: number }): Promise<boolean> {
  try {
    (await RawConnection.open(at.address, at.port, 5000)).close();
    return true;
  } catch {
    return false; // not for this host: an address of another network
  }
}

/** Whether a new host can connect, enable and identify. */
async function stillAlive(facts: Facts): Promise<string | undefined> {
  const bench = new Bench(facts);
  try {
    const { admin } = await bench.admin();
    const outcome = await admin.command({ opcode: 0x06 }, { read: 4096, tweak: (sqe) => void sqe.writeUInt8(1, 40) });
    if (outcome.kind !== 'cqe' || outcome.data.length !== 4096) return `Identify: ${describeOutcome(outcome)}`;
    const { subnqn } = identifyController.decode(outcome.data);
    return subnqn === facts.subnqn || subnqn === '' ? undefined : 'Identify names another subsystem';
  } catch (err) {
    return reason(err);
  } finally {
    bench.close();
  }
}

/** Runs one case and looks whether the target lived through it. */
export async function runCase(one: Case, facts: Facts, signal?: AbortSignal): Promise<CaseResult> {
  const { id, title, spec, accept } = one;
  const base = { id, title, spec, expected: accept.map((e) => e.text) };
  const skipped = one.skip?.(facts);
  if (skipped !== undefined) return { ...base, verdict: 'skipped', got: skipped, alive: true, milliseconds: 0 };
  const started = performance.now();
  const bench = new Bench(facts);
  let got: string;
  let good = false;
  let timer: NodeJS.Timeout | undefined;
  let stop = () => {};
  try {
    const limit = new Promise<never>((_, reject) => {
      stop = () => reject(signal?.reason);
      signal?.addEventListener('abort', stop, { once: true });
      timer = setInterval(() => {
        const now = performance.now();
        if (now - bench.heardAt() < silenceLimit && now - started < caseLimit) return;
        reject(new VioError(`not done after ${Math.round((now - started) / 1000)} s`, { code: 'ETIMEDOUT' }));
      }, 1000);
    });
    const outcome = await Promise.race([one.run(bench), limit]);
    good = accept.some((expectation) => expectation.match(outcome));
    got = describeOutcome(outcome);
  } catch (err) {
    // what we say ourselves is more than its code
    got = `the case could not be set up: ${err instanceof VioError ? err.message : reason(err)}`;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', stop);
    bench.close();
  }
  signal?.throwIfAborted();
  const dead = await stillAlive(facts);
  if (dead !== undefined) got += `; then a new host fails: ${dead}`;
  return {
    ...base,
    verdict: good && dead === undefined ? 'ok' : 'differs',
    got,
    alive: dead === undefined,
    milliseconds: Math.round(performance.now() - started),
  };
}

/** Runs cases one after the other. */
export async function* runCases(cases: readonly Case[], facts: Facts, signal?: AbortSignal): AsyncGenerator<CaseResult, void> {
  for (const one of cases) {
    if (signal?.aborted) return;
    yield await runCase(one, facts, signal);
  }
}
