import type { Session } from './session.js';

/** What a reset would do. */
export interface ResetPlan {
  bdf: string;
  method: 'function' | 'hot';
  /** Every device that loses its state. */
  devices: string[];
}

/** Which devices a reset reaches. @throws VioError (7) where there is none of the kind */
export function planReset(session: Session, hot: boolean): ResetPlan {
  if (!hot) return { bdf: session.bdf, method: 'function', devices: [session.bdf] };
  return { bdf: session.bdf, method: 'hot', devices: session.resetPeers().map((peer) => peer.bdf) };
}

/** Does it. @throws VioError: 7 no such reset, 3 a device of the slot is not ours */
export function resetDevice(session: Session, plan: ResetPlan): void {
  if (plan.method === 'hot') session.hotReset();
  else session.reset();
}
