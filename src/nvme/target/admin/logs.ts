import {
  AdminOpcode,
  Effect,
  effectsLog,
  encodeAnaLog,
  encodeNamespaceList,
  enduranceGroupLog,
  errorEntry,
  featureEffectsLog,
  firmwareLog,
  getLogCmd,
  Lid,
  maxTransfer,
  NvmOpcode,
  rotationalMediaLog,
  Status,
  smartLog,
  sqe,
  Trtype,
} from '../../wire/index.js';
import type { ControllerState } from '../model.js';
import { invalidField, Refusal, statusCode } from '../refusal.js';
import { supportedFeatures } from './features.js';
import { errorEntries, firmware, rotates, rotatingGroup } from './identify.js';

function errorLog(c: ControllerState): Buffer {
  const out = Buffer.alloc(errorEntries * errorEntry.size);
  for (const [i, e] of c.errors.entries()) {
    errorEntry.encode(
      {
        error_count: e.count,
        sqid: e.sqid,
        cmdid: e.cid,
        status_field: e.status,
        parm_error_location: e.location ?? 0xffff,
        lba: e.lba,
        nsid: e.nsid,
        // 0: the transport has nothing to do with the error (NVMe Base 2.0, figure 206)
        trtype: (e.status & 0x7ff) === statusCode(Status.transientTransport, false) ? Trtype.tcp : 0,
      },
      out,
      i * errorEntry.size,
    );
  }
  return out;
}

/** Critical Warning bit 2: the reliability is degraded by media errors. */
const reliabilityDegraded = 1 << 2;

function smart(c: ControllerState, nsid: number): Buffer {
  // per controller only: LPA bit 0 is clear
  if (nsid !== 0 && nsid !== 0xffff_ffff) throw invalidField(4);
  const units = (bytes: number): bigint => BigInt(Math.ceil(bytes / 512_000));
  const { reads, writes, readBytes, writtenBytes } = c.subsystem!.counters();
  const lost = [...c.subsystem!.namespaces.values()].some((namespace) => c.subsystem!.syncError(namespace) !== undefined);
  return smartLog.encode({
    critical_warning: lost ? reliabilityDegraded : 0,
    temperature: 298,
    avail_spare: 100,
    spare_thresh: 10,
    data_units_read: units(readBytes),
    data_units_written: units(writtenBytes),
    host_read_commands: BigInt(reads),
    host_write_commands: BigInt(writes),
    power_cycles: 1n,
    power_on_hours: BigInt(Math.floor((performance.now() - c.subsystem!.started) / 3_600_000)),
    media_errors: c.mediaErrors,
    num_err_log_entries: c.errorCount,
  });
}

function effects(): Buffer {
  const acs = new Array<number>(256).fill(0);
  const iocs = new Array<number>(256).fill(0);
  for (const opcode of Object.values(AdminOpcode)) acs[opcode] = Effect.supported | Effect.controllerScope;
  const { lbcc } = Effect;
  // without a scope: Linux takes scopes of I/O commands for unusual effects
  const { supported } = Effect;
  for (const opcode of [NvmOpcode.flush, NvmOpcode.read, NvmOpcode.compare, NvmOpcode.verify]) iocs[opcode] = supported;
  for (const opcode of [NvmOpcode.write, NvmOpcode.writeZeroes, NvmOpcode.datasetManagement, NvmOpcode.copy])
    iocs[opcode] = supported | lbcc;
  return effectsLog.encode({ acs, iocs });
}

function featureEffects(c: ControllerState): Buffer {
  const fids = new Array<number>(256).fill(0);
  for (const fid of supportedFeatures(c)) fids[fid] = Effect.supported | Effect.controllerScope;
  return featureEffectsLog.encode({ fids });
}

function ana(c: ControllerState, groupsOnly: boolean): Buffer {
  const { ana: states } = c.subsystem!;
  const groups = new Map<number, number[]>(states.groups(c.port).map((group) => [group, []]));
  for (const nsid of c.nsids()) {
    const { group } = c.namespace(nsid)!;
    const list = groups.get(group);
    if (list) list.push(nsid);
    else groups.set(group, [nsid]);
  }
  return encodeAnaLog(
    c.anaChanges,
    [...groups.entries()]
      .sort(([a], [b]) => a - b)
      .map(([grpid, nsids]) => ({
        grpid,
        chgcnt: c.groupChanges.get(grpid) ?? 0n,
        state: states.stateOf(grpid, c.port),
        nsids: groupsOnly ? [] : nsids,
      })),
  );
}

/** LID 00h: which logs there are; bit 0 of each dword. */
function supportedLogs(lids: Iterable<number>): Buffer {
  const out = Buffer.alloc(1024);
  for (const lid of lids) out.writeUInt32LE(1, 4 * lid);
  return out;
}

/** @throws Refusal for a group that is not there */
function checkGroup(c: ControllerState, group: number): void {
  if (group !== rotatingGroup || !rotates(c)) throw invalidField(46);
}

/** The logs of the endurance group of media that rotate. How much of a medium is used up, and its speed, no kernel tells. */
function groupLog(c: ControllerState, lid: number, group: number): Buffer {
  checkGroup(c, group);
  return lid === Lid.enduranceGroup
    ? enduranceGroupLog.encode({ avl_spare: 100, avl_spare_threshold: 10 })
    : rotationalMediaLog.encode({ endgid: group, numa: 1 });
}

const ioLogs = [
  Lid.supported,
  Lid.error,
  Lid.smart,
  Lid.firmware,
  Lid.changedNamespaces,
  Lid.effects,
  Lid.enduranceGroup,
  Lid.ana,
  Lid.featureEffects,
  Lid.managementEffects,
  Lid.rotationalMedia,
];
const discoveryLogs = [Lid.supported, Lid.error, Lid.discovery];

/**
 * Answers Get Log Page (NVMe Base 2.0, 5.16): NUMD + 1 dwords from LPO on, zeroes behind the end of the log.
 * @throws Refusal
 */
export function getLog(c: ControllerState, command: Buffer): Buffer {
  const { lid, lsp, rae, numdl, numdu, lsi, lpo, ot } = getLogCmd.decode(command);
  const lids: number[] = c.subsystem ? ioLogs : discoveryLogs;
  if (!lids.includes(lid)) throw new Refusal(Status.invalidLogPage, { location: 40 });
  const length = ((numdu << 16) | numdl) * 4 + 4;
  // 16 bits shifted by 16 may have become negative: that is more than 2^31 dwords
  if (length <= 0 || length > maxTransfer) throw invalidField(42);
  if (ot || (lpo & 3n) !== 0n) throw invalidField(48);
  c.checkBuffer(command, length, false);
  let log: Buffer;
  switch (lid) {
    case Lid.supported:
      log = supportedLogs(lids);
      break;
    case Lid.error:
      log = errorLog(c);
      break;
    case Lid.smart:
      log = smart(c, sqe.get(command, 'nsid'));
      break;
    case Lid.firmware:
      log = firmwareLog.encode({ afi: 1, frs1: firmware });
      break;
    case Lid.changedNamespaces:
      log = encodeNamespaceList(c.changed.size > 1024 ? [0xffff_ffff] : [...c.changed].sort((a, b) => a - b));
      break;
    case Lid.effects:
      log = effects();
      break;
    case Lid.enduranceGroup:
    case Lid.rotationalMedia:
      log = groupLog(c, lid, lsi);
      break;
    case Lid.featureEffects:
      log = featureEffects(c);
      break;
    case Lid.managementEffects:
      log = featureEffectsLog.encode({ fids: new Array<number>(256).fill(0) }); // there is no management endpoint
      break;
    case Lid.ana:
      log = ana(c, (lsp & 1) !== 0);
      break;
    default:
      log = c.discoveryLog();
  }
  // a log that grows and shrinks may be shorter now than when the host asked for its length
  const fixed = lid !== Lid.discovery && lid !== Lid.ana;
  if (lpo > BigInt(log.length) && (fixed || lpo > 0xffff_ffffn)) throw invalidField(48);
  const out = Buffer.alloc(length);
  log.copy(out, 0, Math.min(Number(lpo), log.length));
  if (!rae) c.logRead(lid);
  return out;
}
