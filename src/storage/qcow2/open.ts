import fs from 'node:fs';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';
import type { Store } from '../../native/storage.js';
import { sourceNames } from '../identity.js';
import type { SourceOptions } from '../source.js';
import { openChain } from './chain.js';
import { Daemon, exportName } from './daemon.js';

/** What the image is called wherever it is opened: the names of its file. @throws the system's error */
function nameOf(file: string): string {
  const { storage } = native();
  const store = storage.open(file, { readonly: true, claim: false });
  try {
    return sourceNames(new Sysroot(), file, storage.identity(store)).identity;
  } finally {
    storage.close(store);
  }
}

const renewals = new WeakMap<Store, () => Promise<void>>();

/** Opens the files of an image anew, and starts its daemon with them. @throws VioError: as openQcow2() does, or ESTALE (3) */
export const renewQcow2 = async (store: Store): Promise<void> => renewals.get(store)?.();

/**
 * Opens `qcow2:FILE`: a daemon of QEMU reads the format, and is asked over a private socket.
 * @param timeout milliseconds that a request waits
 * @throws VioError: 3 for a backing file that is not permitted or an image in use, 5 for a damaged header; the system's error
 */
export async function openQcow2(options: SourceOptions, timeout: number): Promise<Store> {
  const { source, readonly = false, shared = false, direct = false, force = false, zero, remote } = options;
  const file = source.slice('qcow2:'.length);
  const image = fs.realpathSync(file);
  const layers = openChain(image, readonly, remote?.backing);
  const daemon = await Daemon.start(image, layers, { readonly, direct, force });
  try {
    const uri = `nbd+unix:///${exportName}?socket=${encodeURIComponent(daemon.socket)}`;
    const name = nameOf(image);
    const store = await native().storage.openNbd({ uri, name, readonly, shared, zero, timeout });
    daemon.serves(store);
    renewals.set(store, async () => {
      if (nameOf(image) !== name)
        throw new VioError(`${printable(image)}: another file has this name now`, { code: 'ESTALE', exit: Exit.refused });
      await daemon.renew(openChain(image, readonly, remote?.backing));
    });
    return store;
  } catch (err) {
    await daemon.stop();
    throw err;
  }
}
