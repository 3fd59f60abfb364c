// The cases of VFIO sessions that vfio-failures.test.ts runs in guests.
import { devices } from './devices.js';
import type { SessionCase } from './harness.js';
import { mappings } from './mappings.js';
import { programs } from './programs.js';
import { refusals } from './refusals.js';

export { refusals };
/** Those that have the network card and the edu of one group on VFIO. */
export const later: readonly SessionCase[] = [...mappings, ...devices, ...programs];
export const sessionCases: readonly SessionCase[] = [...refusals, ...later];
