import {
  Cattr,
  connectCmd,
  connectData,
  discoveryNqn,
  dynamicCntlid,
  maxCntlid,
  maxQueueSize,
  psdtSgl,
  Status,
  sqe,
  terminated,
} from '../../wire/index.js';
import { possibleName } from '../names.js';
import { badParameter, invalidField, Refusal } from '../refusal.js';

/** HOSTNQN may be empty: hosts that were given no name send none, and only a list of allowed hosts needs one. */
const validHostNqn = (nqn: string): boolean => nqn === '' || possibleName(nqn);

/** A Connect command whose fields are each in order; whether they fit the target is for the target to say. */
export interface Connect {
  qid: number;
  /** Entries of the submission queue. */
  size: number;
  flowControl: boolean;
  /** Keep-alive time-out in milliseconds; 0 on I/O queues, where the field means nothing. */
  keepAlive: number;
  cntlid: number;
  hostid: Buffer;
  subnqn: string;
  /** Empty if the host has no name. */
  hostnqn: string;
  discovery: boolean;
}

/**
 * Reads a Connect command (NVMe Base 2.0, 6.3). The lowest wrong field is the one that is named.
 * @param ownDiscoveryNqn name of the discovery service besides the well-known one
 * @throws Refusal
 */
export function parseConnect(command: Buffer, data: Buffer, ownDiscoveryNqn?: string): Connect {
  if (sqe.get(command, 'psdt') !== psdtSgl) throw invalidField(1);
  if (data.length !== connectData.size) throw new Refusal(Status.sglLengthInvalid, { location: 32 });
  const { recfmt, qid, sqsize, cattr, kato } = connectCmd.decode(command);
  if (recfmt !== 0) throw new Refusal(Status.connectIncompatible);
  if (sqsize === 0 || sqsize + 1 > maxQueueSize) throw badParameter('sqe', 44);
  const { hostid, cntlid, subnqn, hostnqn } = connectData.decode(data);
  if (!hostid.some((byte) => byte !== 0)) throw badParameter('data', 0);
  if (qid === 0 ? cntlid !== dynamicCntlid : cntlid > maxCntlid) throw badParameter('data', 16);
  if (!terminated(connectData.fields.subnqn, data) || !possibleName(subnqn)) throw badParameter('data', 256);
  if (!terminated(connectData.fields.hostnqn, data) || !validHostNqn(hostnqn)) throw badParameter('data', 512);
  const discovery = subnqn === discoveryNqn || subnqn === ownDiscoveryNqn;
  if (discovery && qid !== 0) throw badParameter('sqe', 42);
  return {
    qid,
    size: sqsize + 1,
    flowControl: (cattr & Cattr.sqFlowControlOff) === 0,
    // SPDK's hosts send a time on every queue (NVMe Base 2.0, 6.3: KATO belongs to the admin queue)
    keepAlive: qid === 0 ? kato : 0,
    cntlid,
    hostid: Buffer.from(hostid),
    subnqn,
    hostnqn,
    discovery,
  };
}
