import type { ChildProcess } from 'node:child_process';

/** What runs now. Whatever is left when tests fail ends with them. */
const running = new Set<ChildProcess>();
const endAll = (): void => {
  for (const child of running) child.kill('SIGKILL');
};
process.on('exit', endAll);
if (typeof afterAll === 'function') afterAll(endAll);

/** Lets a child end with the tests of this file, or with this process, at the latest. @returns it */
export function endsWithTests<T extends ChildProcess>(child: T): T {
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}
