/** Milliseconds after which what was waited for will not come. An emulated guest beside other work stands still for seconds. */
export const LIMIT = 60_000;

/** Gives the event loop turns, one at least, until `ready`; throws when nothing makes it so. @param told behind the error: what there is */
export async function eventually(ready: () => boolean | Promise<boolean>, told: () => string = () => ''): Promise<void> {
  const end = Date.now() + LIMIT;
  let pause = 1;
  do {
    if (Date.now() > end) throw new Error(`what was waited for did not come within ${LIMIT} ms ${told()}`.trim());
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(50, pause * 2);
  } while (!(await ready()));
}
