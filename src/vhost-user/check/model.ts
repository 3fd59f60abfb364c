import type { CheckSession } from './session.js';

/** The outcome of a case: what came, and whether that is what the specification asks for; or why it could not be asked. */
export type Outcome = { ok: boolean; got: string } | { skipped: string };

export interface CheckCase {
  readonly name: string;
  /** Section of the vhost-user specification that the expectation follows from. */
  readonly section: string;
  readonly expected: string;
  run(session: CheckSession): Promise<Outcome>;
}
