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
