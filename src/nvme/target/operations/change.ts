/** What an operation would change: found out first, so that it can be told without doing it. */
export interface Change {
  /** What is to be done, for people, in the imperative; empty if it is done already. */
  readonly todo: readonly string[];
  /** Does it, at most once, and before anything else has changed. @throws VioError */
  apply(): void | Promise<void>;
  /** Gives back what was opened for it, when it is not applied. */
  abandon?(): void;
}

/** A change of nothing. */
export const nothing: Change = { todo: [], apply: () => {} };

/** Applies changes in their order, those that have something to do. If one fails, the ones behind it are abandoned. @throws VioError */
export async function applyAll(changes: readonly Change[]): Promise<void> {
  for (const [i, change] of changes.entries()) {
    if (change.todo.length === 0) continue;
    try {
      await change.apply();
    } catch (err) {
      for (const rest of changes.slice(i + 1)) rest.abandon?.();
      throw err;
    }
  }
}
