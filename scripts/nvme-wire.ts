// native/nvme/wire.h from the tables of src/nvme/wire: layouts, PDU types and what each may say, opcodes, statuses, limits.
import type { Field, Fields, Struct } from '../src/common/struct.js';
import { Cattr, connectData, copyRange, cqe, dsmRange, dynamicCntlid, rwCmd, Sgl, sqe } from '../src/nvme/wire/command.js';
import {
  Cmic,
  identifyController,
  identifyNamespace,
  identifyVendor,
  lbaFormat,
  Nsfeat,
  namespaceVendor,
  nsattrWriteProtected,
  Oncs,
} from '../src/nvme/wire/identify.js';
import * as limits from '../src/nvme/wire/limits.js';
import { AnaState, anaGroup, anaHeader } from '../src/nvme/wire/logs.js';
import { AdminOpcode, AsyncEvent, allNamespaces, Cns, Fctype, Fid, Lid, maxNqn, NvmOpcode, Oaes } from '../src/nvme/wire/opcodes.js';
import {
  c2hData,
  commonHeader,
  Fes,
  h2cData,
  icReq,
  icResp,
  PduFlag,
  type PduRule,
  pdus,
  r2t,
  termReq,
  termReqPlen,
} from '../src/nvme/wire/pdu.js';
import { properties } from '../src/nvme/wire/properties.js';
import { NvmStatus, Status } from '../src/nvme/wire/status.js';

/** `kInvalidField` for `invalidField`. */
const constant = (name: string): string => `k${name[0]!.toUpperCase()}${name.slice(1)}`;
const hex = (value: number, digits = 2): string => `0x${value.toString(16).toUpperCase().padStart(digits, '0')}`;

/** A member of a C++ structure: its declaration, where it begins and how many bytes it has. */
type Member = [declaration: string, offset: number, size: number];

/** Fields of a table; those that share their place with another one are left out by name. */
const members = (table: Struct<Fields>, without: string[] = []): Member[] =>
  table
    .layout()
    .filter(([name]) => !without.includes(name))
    .map(([name, field, offset]) => [declare(name, field), offset, field.size!]);
function declare(name: string, field: Field<unknown>): string {
  if (!/^u(8|16|32|64)$/.test(field.type)) throw new Error(`${name}: no C++ type for ${field.type}`);
  return `uint${field.type.slice(1)}_t ${name}`;
}

/** A packed structure; gaps become reserved bytes. */
function structure(name: string, size: number, list: Member[], extra = ''): string {
  const lines: string[] = [];
  let at = 0;
  let gaps = 0;
  const gap = (to: number) => {
    if (to > at) lines.push(`  uint8_t reserved${gaps++}[${to - at}];`);
    at = to;
  };
  for (const [declaration, offset, bytes] of list.toSorted((a, b) => a[1] - b[1])) {
    if (offset < at) throw new Error(`${name}: ${declaration} overlaps what is before it`);
    gap(offset);
    lines.push(`  ${declaration};`);
    at += bytes;
  }
  gap(size);
  return `struct ${name} {\n${lines.join('\n')}\n${extra}};\nstatic_assert(sizeof(${name}) == ${size});\n`;
}

/** Some fields of a table, texts and byte strings as arrays; all others are reserved. */
const some = (table: Struct<Fields>, names: string[]): Member[] =>
  table
    .layout()
    .filter(([name]) => names.includes(name))
    .map(([name, field, offset]) => {
      const number = /^u(8|16|32|64)$/.test(field.type);
      return [number ? declare(name, field) : `uint8_t ${name}[${field.size}]`, offset, field.size!];
    });

/** What the host reads of Identify data. */
const controllerFields = [
  ...[
    'vid',
    'sn',
    'mn',
    'cmic',
    'mdts',
    'cntlid',
    'ver',
    'oaes',
    'crdt1',
    'crdt2',
    'crdt3',
    'acl',
    'kas',
    'anatt',
    'anagrpmax',
    'nanagrpid',
  ],
  ...['cqt', 'maxcmd', 'nn', 'oncs', 'vwc', 'mnan', 'subnqn', 'ioccsz', 'icdoff'],
];
const namespaceFields = [
  ...[
    'nsze',
    'nsfeat',
    'nlbaf',
    'flbas',
    'dlfeat',
    'nawupf',
    'nabspf',
    'noiob',
    'npwg',
    'npdg',
    'nows',
    'anagrpid',
    'nsattr',
    'nguid',
    'eui64',
  ],
];
const formats = identifyNamespace.fields.lbafs;

const ch: Member = ['CommonHeader ch', 0, commonHeader.size];
const pdu = (name: string, table: Struct<Fields>, more: Member[] = []) => structure(name, table.size, [ch, ...members(table), ...more]);

/** The same place under one name: bits 1:0 FUSE, 7:6 PSDT; SGL descriptor 1; both result dwords. */
const sqeMembers: Member[] = [
  ...members(sqe, ['fuse', 'psdt', 'fctype', 'sglAddress', 'sglLength', 'sglId']),
  ['uint8_t flags', sqe.fields.fuse.offset!, 1],
  ['Sgl sgl', sqe.fields.sglAddress.offset!, 16],
];
const sglAt = (field: Field<number> | Field<bigint>): number => field.offset! - sqe.fields.sglAddress.offset!;
const sglMembers: Member[] = [
  ['uint64_t address', 0, 8],
  ['uint32_t length', sglAt(sqe.fields.sglLength), 4],
  ['uint8_t id', sglAt(sqe.fields.sglId), 1],
];
const cqeMembers: Member[] = [['uint64_t result', cqe.fields.dw0.offset!, 8], ...members(cqe, ['dw0', 'dw1'])];

/** The bit of a command dword that a field of one bit is. */
function bitOfCdw12(field: Field<number> | Field<bigint>): number {
  const low = /:(\d+)\+1$/.exec(field.type);
  if (!low) throw new Error(`${field.type} is not one bit`);
  return (field.offset! - sqe.fields.cdw12.offset!) * 8 + Number(low[1]);
}

const enumeration = (name: string, type: string, values: [string, string][]): string =>
  `enum ${name} : ${type} {\n${values.map(([key, value]) => `  ${key} = ${value},`).join('\n')}\n};\n`;

const shown = { never: 'kNoPayload', may: 'kMayPayload', must: 'kPayload' } as const;
const rule = (one: PduRule): string =>
  `    {${hex(one.type)}, ${one.direction === 'h2c'}, ${one.hlen}, ${hex(one.flags)}, ${shown[one.data]}, ${one.digests}},  // ${one.name}`;

/** The opcodes that the engine knows, and its names for the statuses that it gives. */
const opcodes = ['flush', 'write', 'read', 'compare', 'writeZeroes', 'datasetManagement', 'verify', 'copy', 'fabrics'] as const;
const allStatuses = { ...Status, ...NvmStatus };
const statuses = {
  kOk: 'success',
  kInvalidOpcode: 'invalidOpcode',
  kInvalidField: 'invalidField',
  kCidConflict: 'commandIdConflict',
  kInternal: 'internal',
  kFusedFailed: 'abortFailedFused',
  kFusedMissing: 'abortMissingFused',
  kInvalidNamespace: 'invalidNamespace',
  kSequenceError: 'sequenceError',
  kSglLength: 'sglLengthInvalid',
  kSglType: 'sglTypeInvalid',
  kSglOffset: 'sglOffsetInvalid',
  kWriteProtected: 'writeProtected',
  kTransientTransport: 'transientTransport',
  kLbaRange: 'lbaOutOfRange',
  kCapacity: 'capacityExceeded',
  kCopyLimits: 'commandSizeLimitExceeded',
  kWriteFault: 'writeFault',
  kReadError: 'unrecoveredRead',
  kInternalPath: 'internalPath',
  kCompareFailed: 'compareFailure',
  kAborted: 'abortRequested',
  kAbortedSq: 'abortSqDeletion',
  kInterrupted: 'interrupted',
  kNotReady: 'namespaceNotReady',
  kReservationConflict: 'reservationConflict',
  kInvalidHost: 'connectInvalidHost',
  kConnectParameters: 'connectInvalidParameters',
  kAuthenticationRequired: 'authenticationRequired',
  kAnaPersistentLossStatus: 'anaPersistentLoss',
  kAnaInaccessibleStatus: 'anaInaccessible',
  kAnaTransitionStatus: 'anaTransition',
} as const satisfies Record<string, keyof typeof allStatuses>;
const fes = {
  kFesHeader: 'invalidHeader',
  kFesSequence: 'sequence',
  kFesHeaderDigest: 'headerDigest',
  kFesRange: 'outOfRange',
  kFesLimit: 'limitExceeded',
  kFesUnsupported: 'unsupportedParameter',
} as const;
const flags = { kHdgstFlag: 'hdgst', kDdgstFlag: 'ddgst', kLastPdu: 'last', kSuccess: 'success' } as const;
const entries = <T extends object>(o: T) => Object.entries(o) as [string, T[keyof T]][];

export const nvmeWire = `\
// Made by npm run gen from src/nvme/wire. Change its tables, or scripts/nvme-wire.ts.
// clang-format off
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

namespace vioctl::nvme {

static_assert(std::endian::native == std::endian::little,
              "NVMe is little-endian, and so are the machines we build for");

// PDU types (NVMe/TCP transport specification, section 3.6).
${enumeration(
  'PduType',
  'uint8_t',
  entries(pdus).map(([name, { type }]) => [constant(name), hex(type)]),
)}
// FLAGS of the common header.
${enumeration(
  'PduFlag',
  'uint8_t',
  entries(flags).map(([name, key]) => [name, hex(PduFlag[key])]),
)}
// What the header of a type of PDU may say.
enum Payload : uint8_t { kNoPayload, kMayPayload, kPayload };
struct PduRule {
  uint8_t type;
  bool to_controller;  // else to the host
  uint8_t hlen;
  uint8_t flags;  // that may be set
  Payload payload;
  bool digests;  // apply once they are agreed
};
inline constexpr PduRule kPduRules[] = {
${Object.values(pdus).map(rule).join('\n')}
};

// Fatal error status of a TermReq.
${enumeration(
  'Fes',
  'uint16_t',
  entries(fes).map(([name, key]) => [name, hex(Fes[key])]),
)}
#pragma pack(push, 1)

${structure('CommonHeader', commonHeader.size, members(commonHeader))}
${pdu('IcReq', icReq)}
${pdu('IcResp', icResp)}
${pdu('TermReq', termReq)}
constexpr uint32_t kTermReqMin = ${termReqPlen.min}, kTermReqMax = ${termReqPlen.max};

// SGL descriptor: id is type in bits 7:4 and sub type in bits 3:0.
${structure('Sgl', 16, sglMembers)}
constexpr uint8_t kSglInCapsule = ${hex(Sgl.inCapsule)};      // the address is an offset into the capsule's data
constexpr uint8_t kSglCommandBuffer = ${hex(Sgl.commandBuffer)};  // data moves in data PDUs

// Submission queue entry. flags: bits 1:0 FUSE, 7:6 PSDT. nsid of a fabrics command: FCTYPE in the lowest byte.
${structure('Sqe', sqe.size, sqeMembers, '\n  uint64_t slba() const { return cdw10 | static_cast<uint64_t>(cdw11) << 32; }\n')}
// Completion queue entry. status: bit 0 phase, 8:1 SC, 11:9 SCT, 14 more, 15 DNR.
${structure('Cqe', cqe.size, cqeMembers)}
${structure('CapsuleCmd', 8 + sqe.size, [ch, ['Sqe sqe', 8, sqe.size]])}
${structure('CapsuleResp', 8 + cqe.size, [ch, ['Cqe cqe', 8, cqe.size]])}
// H2CData and C2HData. For C2HData, ttag is reserved.
${pdu('Data', h2cData)}
static_assert(sizeof(Data) == ${c2hData.size});

${pdu('R2t', r2t)}
// Range of Dataset Management (NVM command set, 3.2.3).
${structure('DsmRange', dsmRange.size, members(dsmRange))}
// Source range of Copy, descriptor format 0 (NVM command set, 3.2.2). nlb is 0's based.
${structure('CopyRange', copyRange.size, members(copyRange))}
// Data of Connect.
${structure('ConnectData', connectData.size, some(connectData, ['hostid', 'cntlid', 'subnqn', 'hostnqn']))}
// Identify Controller and Identify Namespace: what the host reads of them.
${structure('IdController', identifyController.size, [
  ...some(identifyController, controllerFields),
  [`uint8_t vendor[${identifyController.size - identifyVendor}]`, identifyVendor, identifyController.size - identifyVendor],
])}
${structure('LbaFormat', lbaFormat.size, some(lbaFormat, ['ms', 'ds']))}
${structure('IdNamespace', identifyNamespace.size, [
  ...some(identifyNamespace, namespaceFields),
  [`LbaFormat lbafs[${formats.size! / lbaFormat.size}]`, formats.offset!, formats.size!],
  [`uint8_t vendor[${identifyNamespace.size - namespaceVendor}]`, namespaceVendor, identifyNamespace.size - namespaceVendor],
])}
// Log of asymmetric access: a header, then groups with their namespaces. state: bits 3:0.
${structure('AnaHeader', anaHeader.size, members(anaHeader))}
${structure('AnaGroup', anaGroup.size, [...members(anaGroup, ['state']), ['uint8_t state', anaGroup.fields.state.offset!, 1]])}
#pragma pack(pop)

// Opcodes of the NVM command set that the engine knows, and the one of all fabrics commands.
${enumeration(
  'Opcode',
  'uint8_t',
  opcodes.map((name) => [name === 'datasetManagement' ? 'kDsm' : constant(name), hex(NvmOpcode[name])]),
)}
// Types of fabrics commands.
${enumeration(
  'Fctype',
  'uint8_t',
  entries(Fctype).map(([name, value]) => [constant(name), hex(value)]),
)}
// Opcodes of admin commands that the host sends.
${enumeration(
  'AdminOpcodes',
  'uint8_t',
  (['getLogPage', 'identify', 'abort', 'setFeatures', 'asyncEventRequest', 'keepAlive'] as const).map((name) => [
    constant(name),
    hex(AdminOpcode[name]),
  ]),
)}
// What the host asks for: Identify structures, log pages, features, properties and their offsets.
constexpr uint8_t kCnsNamespace = ${hex(Cns.namespace)}, kCnsController = ${hex(Cns.controller)};
constexpr uint8_t kCnsNamespaces = ${hex(Cns.activeNamespaces)}, kCnsDescriptors = ${hex(Cns.namespaceDescriptors)};
constexpr uint8_t kLidChangedNamespaces = ${hex(Lid.changedNamespaces)}, kLidAna = ${hex(Lid.ana)};
constexpr uint8_t kFidQueues = ${hex(Fid.numberOfQueues)}, kFidEvents = ${hex(Fid.asyncEventConfiguration)};
constexpr uint32_t kPropertyCap = ${hex(properties.CAP.offset)}, kPropertyVs = ${hex(properties.VS.offset)};
constexpr uint32_t kPropertyCc = ${hex(properties.CC.offset)}, kPropertyCsts = ${hex(properties.CSTS.offset)};
constexpr uint32_t kEventNamespace = ${hex(AsyncEvent.namespaceChanged, 8)}, kEventAna = ${hex(AsyncEvent.anaChanged, 8)};
constexpr uint32_t kOaesNamespace = ${hex(Oaes.namespaceAttribute)}, kOaesAna = ${hex(Oaes.ana)};
constexpr uint32_t kAllNamespaces = ${hex(allNamespaces, 8)};
constexpr uint16_t kDynamicCntlid = ${hex(dynamicCntlid, 4)};
constexpr uint8_t kSqFlowControlOff = ${hex(Cattr.sqFlowControlOff)};
constexpr uint16_t kOncsCompare = ${hex(Oncs.compare)}, kOncsDsm = ${hex(Oncs.dsm)}, kOncsWriteZeroes = ${hex(Oncs.writeZeroes)};
constexpr uint8_t kCmicAna = ${hex(Cmic.ana)};
constexpr uint8_t kNsfeatAtomic = ${hex(Nsfeat.atomic)}, kNsfeatOptimal = ${hex(Nsfeat.optimal)};
constexpr uint8_t kNsattrWriteProtected = ${hex(nsattrWriteProtected)};
constexpr size_t kMaxNqn = ${maxNqn};
${enumeration(
  'AnaState',
  'uint8_t',
  entries(AnaState).map(([name, value]) => [`kAna${name[0]!.toUpperCase()}${name.slice(1)}`, hex(value)]),
)}
// Bits of cdw12: of Write, Copy and Write Zeroes; of Write Zeroes.
inline constexpr uint32_t kFua = 1u << ${bitOfCdw12(rwCmd.fields.fua)};
inline constexpr uint32_t kDeallocate = 1u << ${bitOfCdw12(rwCmd.fields.deac)};

// Status of a CQE without the phase bit: SCT << 8 | SC, kDnr where a retry cannot help.
using Status = uint16_t;
constexpr Status kDnr = 0x4000;
${entries(statuses)
  .map(
    ([name, key]) =>
      `constexpr Status ${name} = ${hex((allStatuses[key].sct << 8) | allStatuses[key].sc, 3)}${allStatuses[key].dnr ? ' | kDnr' : ''};`,
  )
  .join('\n')}

// Limits of our target (src/nvme/wire/limits.ts): what Identify and ICResp promise.
constexpr uint32_t kAdminInCapsule = ${limits.inCapsule.admin}, kIoInCapsule = ${limits.inCapsule.io};
constexpr uint32_t kMaxTransfer = ${limits.maxTransfer}, kMaxH2cData = ${limits.maxH2cData};
constexpr uint64_t kMaxZeroes = ${limits.maxZeroes};
constexpr uint32_t kMaxQueueSize = ${limits.maxQueueSize};
constexpr uint32_t kCopyRanges = ${limits.copyRanges}, kDsmRanges = ${limits.dsmRanges};

}  // namespace vioctl::nvme
`;
