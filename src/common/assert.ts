/**
 * States an invariant at the border of an allocator or a state machine. What breaks it is a defect of this program: the error
 * says which one, and ends the command as an internal error.
 */
export function assert(condition: boolean, invariant: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${invariant}`);
}
