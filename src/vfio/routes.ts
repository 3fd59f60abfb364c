import { execFile } from 'node:child_process';
import { parseIpRoutes, type Route } from './net.js';

const run = (args: string[]): Promise<string | undefined> =>
  new Promise((resolve) => {
    execFile('ip', args, { timeout: 5000, maxBuffer: 1 << 26 }, (err, stdout) => resolve(err ? undefined : stdout));
  });

/**
 * The routes of all tables of this network namespace, as `ip` tells them.
 * @returns undefined where iproute2 is missing or too old for JSON: /proc then has to do, which lacks the IPv4 tables of VRFs
 */
export async function allRoutes(): Promise<Route[] | undefined> {
  const texts = await Promise.all(([4, 6] as const).map((family) => run([`-${family}`, '-j', 'route', 'show', 'table', 'all'])));
  if (texts.some((text) => text === undefined)) return undefined;
  try {
    return [...parseIpRoutes(texts[0]!, 4), ...parseIpRoutes(texts[1]!, 6)];
  } catch {
    return undefined;
  }
}
