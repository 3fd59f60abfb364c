import { native } from '../../../native/index.js';
import {
  Cmic,
  Cns,
  ControllerType,
  Ctratt,
  copyRanges,
  dsmRanges,
  encodeControllerList,
  encodeIdDescriptors,
  encodeNamespaceList,
  identifyCmd,
  identifyController,
  identifyNamespace,
  identifySize,
  identifyVendor,
  inCapsule,
  independentNamespace,
  Lpa,
  maxQueueSize,
  maxTransfer,
  mdts,
  Nsfeat,
  NsfeatAll,
  NsIdType,
  namespaceVendor,
  nsattrWriteProtected,
  nvmController,
  nvmNamespace,
  Oaes,
  Oncs,
  Sgls,
  Status,
  sqe,
  wzsl,
} from '../../wire/index.js';
import { transitionDelay, transitionSeconds } from '../ana.js';
import { type ControllerState, maxGroups, maxNamespaces, type Namespace } from '../model.js';
import { invalidField, Refusal } from '../refusal.js';

/** Version of the base specification that we follow: 2.0. */
export const version = 0x0002_0000;
/** Asynchronous Event Requests that wait at a time. */
export const maxEventRequests = 4;
/** Entries of the error log. */
export const errorEntries = 64;
export const firmware = '1.0';

/** Fields that both kinds of controllers have. */
const common = (c: ControllerState) => ({
  fr: firmware,
  mdts,
  cntlid: c.cntlid,
  ver: version,
  acl: 3,
  aerl: maxEventRequests - 1,
  elpe: errorEntries - 1,
  maxcmd: maxQueueSize,
  sgls: Sgls.supported | Sgls.offset,
  subnqn: c.subnqn,
  ioccsz: (64 + inCapsule.io) / 16,
  iorcsz: 1,
  icdoff: 0,
  msdbd: 1,
  kas: 10,
});

/** CNS 01h of an I/O controller. */
function ioController(c: ControllerState): Buffer {
  const data = identifyController.encode({
    ...common(c),
    sn: c.subsystem!.serial,
    mn: c.subsystem!.model,
    cmic: Cmic.ports | Cmic.controllers | Cmic.ana,
    oaes: Oaes.namespaceAttribute | Oaes.ana,
    ctratt: Ctratt.hostId128 | Ctratt.tbkas | Ctratt.enduranceGroups,
    endgidmax: rotatingGroup,
    cntrltype: ControllerType.io,
    frmw: 0x03, // one slot, read only
    lpa: Lpa.effects | Lpa.extended | Lpa.supported,
    crdt1: transitionDelay,
    npss: 0,
    wctemp: 343,
    cctemp: 353,
    anatt: transitionSeconds,
    anacap: 0x1f | 0x40, // all states reported; ANAGRPID does not change while attached
    anagrpmax: maxGroups,
    nanagrpid: maxGroups,
    sqes: 0x66,
    cqes: 0x44,
    nn: maxNamespaces,
    mnan: maxNamespaces,
    oncs: Oncs.compare | Oncs.dsm | Oncs.writeZeroes | Oncs.saveSelect | Oncs.verify | Oncs.copy,
    fuses: 1,
    vwc: 0x05, // present; Flush wants a namespace
    awun: 0,
    awupf: 0,
    acwu: 0,
    ocfs: 1, // copy descriptor format 0
  });
  native().nvmeHost.hostStamp().copy(data, identifyVendor);
  return data;
}

/** CNS 01h of a discovery controller. */
function discoveryController(c: ControllerState): Buffer {
  return identifyController.encode({
    ...common(c),
    cmic: 0,
    oaes: Oaes.discovery,
    ctratt: Ctratt.hostId128 | Ctratt.tbkas,
    cntrltype: ControllerType.discovery,
    lpa: Lpa.extended,
    ioccsz: 4,
  });
}

/**
 * The endurance group of all namespaces whose media rotate: the log that tells of such media is one of a group (NVMe Base 2.0,
 * 8.20). All others are in none.
 */
export const rotatingGroup = 1;
const enduranceGroupOf = (ns: Namespace): number => (ns.geometry.rotational ? rotatingGroup : 0);
/** Whether a host sees such a group. */
export const rotates = (c: ControllerState): boolean => c.nsids().some((nsid) => c.namespace(nsid)!.geometry.rotational);

/** CNS 00h. */
function namespace(ns: Namespace): Buffer {
  const blocks = BigInt(ns.size / ns.blockSize);
  const ds = Math.log2(ns.blockSize);
  const perMdts = maxTransfer / ns.blockSize;
  const { geometry, limits } = ns;
  /** A number of blocks, counted from 0: at least one, at most what 16 bits hold. */
  const units = (bytes: number): number => Math.min(Math.max(Math.floor(bytes / ns.blockSize), 1), 65536) - 1;
  const write = units(Math.max(geometry.physical, geometry.minimumIo));
  // a multiple of what is written at best
  const optimal = units(geometry.optimalIo || maxTransfer) + 1;
  const atomic = units(ns.atomicWrite);
  const boundary = Math.floor((limits?.chunk ?? 0) / ns.blockSize);
  const discard = units(Math.max(limits?.discardGranularity ?? 0, geometry.physical));
  const data = identifyNamespace.encode({
    nsze: blocks,
    ncap: blocks,
    nuse: blocks,
    nsfeat: Nsfeat.atomic | Nsfeat.optimal,
    nlbaf: 0,
    flbas: 0,
    nmic: 1,
    dlfeat: 0x09, // deallocated blocks read as zeroes; Write Zeroes deallocates when asked to
    // Aligned writes of this size only: a boundary of the same size says that others may be torn.
    nawun: atomic,
    nawupf: atomic,
    nabsn: atomic,
    nabspf: atomic,
    noiob: boundary <= 0xffff ? boundary : 0,
    npwg: write,
    npwa: write,
    npdg: discard,
    npda: discard,
    nows: Math.max(write + 1, optimal - (optimal % (write + 1))) - 1,
    mssrl: Math.min(perMdts, 0xffff),
    mcl: perMdts,
    msrc: copyRanges - 1,
    anagrpid: ns.group,
    nsattr: ns.readonly ? nsattrWriteProtected : 0,
    endgid: enduranceGroupOf(ns),
    nguid: ns.ids.nguid,
    eui64: ns.ids.eui64,
    lbafs: [{ ms: 0, ds, rp: 0 }],
  });
  native().nvmeHost.hostHops(ns.store).copy(data, namespaceVendor);
  return data;
}

/**
 * Answers Identify (NVMe Base 2.0, 5.17). The data buffer must be 4096 bytes.
 * @throws Refusal
 */
export function identify(c: ControllerState, command: Buffer): Buffer {
  const { cns, cntid, csi } = identifyCmd.decode(command);
  const nsid = sqe.get(command, 'nsid');
  c.checkBuffer(command, identifySize, true);
  if (!c.subsystem) {
    if (cns !== Cns.controller) throw invalidField(40);
    return discoveryController(c);
  }
  const { subsystem } = c;
  /** An active namespace; undefined for a valid number that is not active. */
  const active = (): Namespace | undefined => {
    if (nsid === 0 || nsid > maxNamespaces) throw new Refusal(Status.invalidNamespace, { location: 4 });
    return c.namespace(nsid);
  };
  const nvm = (): void => {
    if (csi !== 0) throw invalidField(47);
  };
  const list = (): Buffer => {
    if (nsid >= 0xffff_fffe) throw new Refusal(Status.invalidNamespace, { location: 4 });
    return encodeNamespaceList(c.nsids().filter((id) => id > nsid));
  };
  switch (cns) {
    case Cns.namespace: {
      const ns = active();
      return ns ? namespace(ns) : Buffer.alloc(identifySize);
    }
    case Cns.controller:
      return ioController(c);
    case Cns.activeNamespaces:
      return list();
    case Cns.namespaceDescriptors: {
      const ns = active();
      if (!ns) throw new Refusal(Status.invalidNamespace, { location: 4 });
      return encodeIdDescriptors([
        { type: NsIdType.uuid.type, id: ns.ids.uuid },
        { type: NsIdType.nguid.type, id: ns.ids.nguid },
        { type: NsIdType.eui64.type, id: ns.ids.eui64 },
        { type: NsIdType.csi.type, id: Buffer.alloc(1) },
      ]);
    }
    case Cns.csNamespace:
      nvm();
      return active() ? nvmNamespace.encode({}) : Buffer.alloc(identifySize);
    case Cns.csController:
      nvm();
      return nvmController.encode({ vsl: mdts, wzsl, dmrl: dsmRanges - 1 });
    case Cns.csActiveNamespaces:
      nvm();
      return list();
    case Cns.independentNamespace: {
      const ns = active();
      if (!ns) return Buffer.alloc(identifySize);
      return independentNamespace.encode({
        nsfeat: ns.geometry.rotational ? NsfeatAll.rotational : 0,
        nmic: 1,
        anagrpid: ns.group,
        nsattr: ns.readonly ? nsattrWriteProtected : 0,
        endgid: enduranceGroupOf(ns),
        nstat: 1,
      });
    }
    case Cns.controllers:
      return encodeControllerList([...subsystem.controllers.keys()].filter((id) => id >= cntid).sort((a, b) => a - b));
    case Cns.endurancegroups: {
      const groups = Buffer.alloc(identifySize);
      if (rotates(c) && identifyCmd.get(command, 'cnssid') <= rotatingGroup) {
        groups.writeUInt16LE(1, 0);
        groups.writeUInt16LE(rotatingGroup, 2);
      }
      return groups;
    }
    case Cns.commandSets: {
      const sets = Buffer.alloc(identifySize);
      sets.writeBigUInt64LE(1n, 0);
      return sets;
    }
    default:
      throw invalidField(40);
  }
}
