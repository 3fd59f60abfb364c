/** Which hosts may use a subsystem. */
import { checkHostNqn } from '../names.js';

export class AccessList {
  /** Every host may, whatever the list says. */
  any: boolean;
  readonly hosts: Set<string>;

  /** @param hosts host NQNs; undefined lets every host in @throws usage error for what is no NQN */
  constructor(hosts?: Iterable<string>, any = hosts === undefined) {
    this.hosts = new Set([...(hosts ?? [])].map(checkHostNqn));
    this.any = any;
  }

  admits(hostnqn: string): boolean {
    return this.any || this.hosts.has(hostnqn);
  }
}
