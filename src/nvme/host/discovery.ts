/** The discovery log of a target, read as a host must: consistently, and within limits. */
import { Exit, VioError } from '../../common/errors.js';
import { type DiscoveryRecord, describeRecord, discoveryHeader, discoveryNqn, discoveryRecord, Lid } from '../wire/index.js';
import { Controller, type ControllerOptions } from './controller.js';

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

/** Reads the discovery log of a connected discovery controller. @throws VioError when it never stands still or is too large */
export async function readDiscoveryLog(controller: Controller): Promise<Discovery> {
  const header = async () => {
    const raw = await controller.getLog(Lid.discovery, discoveryHeader.size, { nsid: 0 });
    return { raw, ...discoveryHeader.decode(raw) };
  };
  for (let attempt = 0; attempt < maxTries; attempt++) {
    const { numrec, genctr, recfmt, raw } = await header();
    if (recfmt !== 0) throw new VioError(`discovery log of record format ${recfmt}`, { code: 'ENOTSUP', exit: Exit.unsupported });
    if (numrec > maxRecords)
      throw new VioError(`the discovery log says it has ${numrec} records`, {
        code: 'EPROTO',
        exit: Exit.damaged,
        hint: `at most ${maxRecords} are read`,
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

/** Connects to the discovery service, reads its log, disconnects. */
export async function discover(
  options: Omit<ControllerOptions, 'subnqn' | 'ioQueues'> & { subnqn?: string | undefined },
): Promise<Discovery> {
  const controller = await Controller.connect({ ...options, subnqn: options.subnqn ?? discoveryNqn, ioQueues: 0 });
  try {
    return await readDiscoveryLog(controller);
  } finally {
    await controller.disconnect();
  }
}
