import type { Bench, Facts } from './bench.js';
import type { Expectation } from './expect.js';
import type { Outcome } from './raw.js';

/** One row of the wire table. */
export interface Case {
  id: string;
  /** What is sent. */
  title: string;
  /** Why the target must do what is expected: section of the specification, or what the case protects. */
  spec: string;
  accept: readonly Expectation[];
  run: (bench: Bench) => Promise<Outcome>;
  /** Why the case cannot be judged on this target, if so. */
  skip?: (facts: Facts) => string | undefined;
}

/** Why a case of an optional command cannot be judged: `bit` of ONCS is clear. */
export const lacks =
  (bit: number, name: string) =>
  (facts: Facts): string | undefined =>
    facts.identify.oncs & bit ? undefined : `no ${name} (ONCS)`;

/** Why a case with a block in a capsule cannot be judged. */
export const noInCapsule = (facts: Facts): string | undefined =>
  facts.inCapsule < facts.ns.blockSize ? 'no in-capsule data for one block' : undefined;
