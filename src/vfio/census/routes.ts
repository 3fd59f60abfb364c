import { native } from '../../native/index.js';
import type { Route } from './interfaces.js';

/** RT_TABLE_MAIN (linux/rtnetlink.h). */
const main = 254;

/**
 * The routes of all tables of this network namespace, as the kernel tells them.
 * @returns undefined where it may not be asked: /proc then has to do, which lacks IPv4 tables but main, and further next hops
 */
export function allRoutes(): Route[] | undefined {
  try {
    return native()
      .sysfs.routes()
      .map(({ family, destination, prefix, device, table }) => ({
        family,
        destination: `${destination}/${prefix}`,
        prefix,
        device,
        table: table === main ? 'main' : String(table),
      }));
  } catch {
    return undefined;
  }
}
