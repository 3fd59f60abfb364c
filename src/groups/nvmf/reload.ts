/** SIGHUP of `nvmf serve`. */
import type { ServiceManager } from '../../cli/systemd.js';
import type { VioError } from '../../common/errors.js';
import type { TargetConfig } from '../../nvme/target/serve/config.js';
import { statusLine } from '../../nvme/target/serve/manager.js';
import type { Running } from '../../nvme/target/serve/serve.js';

/**
 * Reads the file of --config and the files of keys again. Whatever is wrong with it, the server goes on as it was.
 * @param file of --config; without one there is nothing to read
 * @param read gives what the command line asks to serve
 */
export async function reload(
  { configuration, target }: Running,
  file: string | undefined,
  read: () => Promise<TargetConfig>,
  manager: ServiceManager,
  log: (message: string) => void,
): Promise<void> {
  if (file === undefined) return;
  if (file === '-') return log('the configuration came from stdin: it is not read again');
  manager.reloading();
  try {
    const { changes } = await configuration.load(await read(), { own: true });
    log(changes.length > 0 ? `read ${file} again:` : `read ${file} again: nothing differs`);
    for (const change of changes) log(`  ${change}`);
    manager.reloaded(statusLine(target));
  } catch (err) {
    const lost = (err as VioError).code === 'NOT_RESTORED';
    log(
      `${file} is not in use, the server ${lost ? 'could not go back to what it served' : 'goes on as before'}: ${(err as Error).message}`,
    );
    manager.reloaded(`reload failed: ${(err as Error).message.split('\n')[0]}`);
  }
}
