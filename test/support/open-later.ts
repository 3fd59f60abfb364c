import { native } from '../../src/native/index.js';
import type { Store } from '../../src/native/storage.js';

/** Opens one file off the event loop. @throws the system's error */
export async function openLater(path: string): Promise<Store> {
  const [opened] = await native().storage.openLater([{ path, options: {}, parts: [] }]);
  if (!opened || !('store' in opened)) throw opened;
  return opened.store;
}
