/** The discovery log of a target, read as a host must: consistently, and within limits. */
import { Exit, VioError } from '../../common/errors.js';
import { placeText } from '../../common/text/place.js';
import { type DiscoveryRecord, describeRecord, discoveryHeader, discoveryNqn, discoveryRecord, Lid } from '../wire/index.js';
import { Controller, type ControllerOptions } from './controller.js';
import { timedOut } from './errors.js';

export interface Discovery {
  genctr: number;
  records: DiscoveryRecord[];
  /** The log's bytes: header and records, 1024 bytes each. */
  raw: Buffer;
}

/** No real target has more; one that says so is not believed. */
const maxRecords = 16384;
/** A log that changes while it is read is read again this often. */
const maxTries = 10;

/**
 * Reads the discovery log of a connected discovery controller.
 * @param most records that are believed
 * @throws VioError when it never stands still or is too large
 */
export async function readDiscoveryLog(controller: Controller, most = maxRecords): Promise<Discovery> {
  const header = async () => {
    const raw = await controller.getLog(Lid.discovery, discoveryHeader.size, { nsid: 0 });
    return { raw, ...discoveryHeader.decode(raw) };
  };
  for (let attempt = 0; attempt < maxTries; attempt++) {
    const { numrec, genctr, recfmt, raw } = await header();
    if (recfmt !== 0) throw new VioError(`discovery log of record format ${recfmt}`, { code: 'ENOTSUP', exit: Exit.unsupported });
    if (numrec > most)
      throw new VioError(`the discovery log says it has ${numrec} records`, {
        code: 'EPROTO',
        exit: Exit.damaged,
        hint: `at most ${most} are read`,
      });
    const count = Number(numrec);
    const body =
      count === 0
        ? Buffer.alloc(0)
        : await controller.getLog(Lid.discovery, count * discoveryRecord.size, { nsid: 0, lpo: BigInt(discoveryHeader.size) });
    if ((await header()).genctr !== genctr) continue;
    const records = Array.from({ length: count }, (_, i) => describeRecord(discoveryRecord.decode(body, i * discoveryRecord.size)));
    return { genctr: Number(genctr), records, raw: Buffer.concat([raw, body]) };
  }
  throw new VioError(`the discovery log changed ${maxTries} times while it was read`, { code: 'EAGAIN', hint: 'try again later' });
}

/**
 * Connects to the discovery service, reads its log, disconnects.
 * @param bounds milliseconds for all of it once it is connected to, beyond the time-out of each command; records that are believed
 */
export async function discover(
  options: Omit<ControllerOptions, 'subnqn' | 'ioQueues'> & { subnqn?: string | undefined },
  { within, records }: { within?: number; records?: number } = {},
): Promise<Discovery> {
  const late = new AbortController();
  const timer = within === undefined ? undefined : setTimeout(() => late.abort(), within);
  try {
    const controller = await Controller.connect({ ...options, subnqn: options.subnqn ?? discoveryNqn, ioQueues: 0 }, late.signal);
    try {
      return await readDiscoveryLog(controller, records);
    } finally {
      await controller.disconnect();
    }
  } catch (err) {
    throw late.signal.aborted ? timedOut(`${placeText(options)}: discovery`, within!) : err;
  } finally {
    clearTimeout(timer);
  }
}
