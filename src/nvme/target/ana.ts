/** Asymmetric access: in which state each ANA group of a subsystem is, on each port (NVMe Base 2.0, 8.1). */
import { AnaState, Status } from '../wire/index.js';
import { statusCode } from './refusal.js';

/** ANATT: seconds that a group may be in the state "change" before hosts reset their controllers. */
export const transitionSeconds = 10;

/** CRDT1, in units of 100 ms: how long a host waits before it repeats what met a group in "change". */
export const transitionDelay = 5;
const delayed = 1 << 11; // CRD 1 of a status

/** Gates of ANA states: the status of all I/O commands in that state. */
const gates = new Map<number, number>([
  [AnaState.inaccessible, statusCode(Status.anaInaccessible)],
  [AnaState.persistentLoss, statusCode(Status.anaPersistentLoss)],
  [AnaState.change, statusCode(Status.anaTransition)],
]);

/** @param delays the host takes retry delays (Host Behavior Support, ACRE) @returns the status of all I/O commands in a state, or 0 */
export const gateOf = (state: number, delays: boolean): number => {
  const gate = gates.get(state) ?? 0;
  return delays && state === AnaState.change ? gate | delayed : gate;
};

/** States of the ANA groups of one subsystem. Groups that nobody has set are optimized. */
export class AnaStates {
  /** Of all ports that have no state of their own. */
  readonly #groups = new Map<number, number>();
  /** Port to group to state. */
  readonly #ports = new Map<number, Map<number, number>>();
  /** While it drains, nothing is accessible. */
  draining = false;

  /** As it was set, whether it drains or not. */
  configured(group: number, port: number): number {
    return this.#ports.get(port)?.get(group) ?? this.#groups.get(group) ?? AnaState.optimized;
  }

  /** What hosts of a port meet. */
  stateOf(group: number, port: number): number {
    const state = this.configured(group, port);
    return this.draining && state !== AnaState.persistentLoss ? AnaState.inaccessible : state;
  }

  /** Sets the state of a group: on one port, or on all, whatever was set for single ones before. */
  set(group: number, state: number, port?: number): void {
    if (port !== undefined) {
      const groups = this.#ports.get(port) ?? new Map<number, number>();
      this.#ports.set(port, groups.set(group, state));
      return;
    }
    for (const groups of this.#ports.values()) groups.delete(group);
    this.#groups.set(group, state);
  }

  /** A port is gone: its number is not used again. */
  forget(port: number): void {
    this.#ports.delete(port);
  }

  /** Groups that have been set for a port, or for all. */
  groups(port: number): number[] {
    return [...new Set([...this.#groups.keys(), ...(this.#ports.get(port)?.keys() ?? [])])];
  }

  /** States of all ports, without those that are as they were at first. */
  common(): [group: number, state: number][] {
    return [...this.#groups].filter(([, state]) => state !== AnaState.optimized);
  }

  /** States that a port has for itself. */
  own(port: number): [group: number, state: number][] {
    return [...(this.#ports.get(port) ?? [])].filter(([group, state]) => state !== (this.#groups.get(group) ?? AnaState.optimized));
  }
}
