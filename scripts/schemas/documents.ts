/**
 * What each command prints with --json, and (…Record) as a line of --ndjson. The schemas and the key lists of the manual pages
 * are made from these types; a command's type is its id in one word. Only types: nothing of this runs.
 */

import type { LoadReport } from '../../src/control/load-report.js';
import type { HolderInfo } from '../../src/dma/holder.js';
import type { Placement, Plan } from '../../src/dma/layout.js';
import type { Extent } from '../../src/dma/space.js';
import type { Container } from '../../src/migration/containers/input.js';
import type { Converted } from '../../src/migration/export/convert.js';
import type { Extracted } from '../../src/migration/export/extract.js';
import type { Against } from '../../src/migration/inspect/against.js';
import type { Comparison } from '../../src/migration/inspect/diff.js';
import type { Dump } from '../../src/migration/inspect/dump.js';
import type { Statistics } from '../../src/migration/inspect/stat.js';
import type { Verification } from '../../src/migration/inspect/verify.js';
import type { RamBlock, WalkEvent } from '../../src/migration/stream/model.js';
import type { CaseResult } from '../../src/nvme/conform/run.js';
import type { BenchReport } from '../../src/nvme/host/bench.js';
import type { WriteSummary } from '../../src/nvme/host/copy.js';
import type { Ping } from '../../src/nvme/host/ping.js';
import type { ProxyRecord } from '../../src/nvme/proxy/proxy.js';
import type { ControlAnswer } from '../../src/nvme/target/serve/answers.js';
import type { ServeReport } from '../../src/nvme/target/serve/report.js';
import type { DiscoveryRecord } from '../../src/nvme/wire/logs.js';
import type { BenchResult } from '../../src/uring/bench.js';
import type { ProbeReport } from '../../src/uring/host/probe.js';
import type { ProcessRing } from '../../src/uring/host/processes.js';
import type { Entry } from '../../src/uring/register.js';
import type { Applied } from '../../src/vfio/apply/apply.js';
import type { Failure } from '../../src/vfio/binding/batch.js';
import type { BoundDevice } from '../../src/vfio/binding/bind.js';
import type { Restored } from '../../src/vfio/binding/restore.js';
import type { Script } from '../../src/vfio/binding/script.js';
import type { UnboundDevice } from '../../src/vfio/binding/unbind.js';
import type { Capability } from '../../src/vfio/devices/capabilities.js';
import type { Diagnosis } from '../../src/vfio/inventory/doctor.js';
import type { DeviceReport, DeviceRow } from '../../src/vfio/inventory/inventory.js';
import type { SelftestReport } from '../../src/vfio/selftest/selftest.js';
import type { IrqEvent } from '../../src/vfio/session/irq.js';
import type { IrqType, Region } from '../../src/vfio/session/session.js';
import type { SriovResult } from '../../src/vfio/sriov/sriov.js';
import type { Leftover } from '../../src/vfio/transaction/transaction.js';
import type { BlkConfigFile } from '../../src/vhost-user/blk/config/description.js';
import type { DiskChange, DiskGone, DiskReport, DiskStats } from '../../src/vhost-user/blk/control.js';
import type { BlkReady } from '../../src/vhost-user/blk/model.js';
import type { CheckResult } from '../../src/vhost-user/check/run.js';
import type { WindowRecord } from '../../src/vhost-user/frontend/holding.js';
import type { ControlState } from '../../src/vhost-user/shmem/control.js';
import type { EntryView } from '../../src/vhost-user/shmem/server.js';
import type { ShmemReady } from '../../src/vhost-user/shmem/serving.js';
import type { Installed, SocketRow } from '../../src/vhost-user/tools/list.js';
import type { ProbeResult } from '../../src/vhost-user/tools/probe.js';
import type { TraceEnd, TraceRecord } from '../../src/vhost-user/tools/proxy.js';

// vfio

export interface VfioList {
  /** one entry for each device, by address */
  devices: DeviceRow[];
}
export type VfioListRecord = DeviceRow;

/** What VFIO says of a device that was opened. */
interface Opened {
  open: true;
  /** how the kernel was asked: group and container, cdev (iommufd), or noiommu */
  api: string;
  /** the device can be reset alone */
  reset: boolean;
  /** devices that a hot reset takes along */
  hotReset: string[];
  regions: Region[];
  irqs: IrqType[];
}
/** A device that could not be opened. */
interface NotOpened {
  open: false;
  /** the reason */
  why: string;
}
export interface VfioShow extends DeviceReport {
  /** what VFIO says of it, if it is bound to VFIO and nobody holds it */
  inside?: Opened | NotOpened;
}

export interface VfioDoctor {
  /** findings, the most important first */
  findings: Diagnosis[];
}

/** The changes of bind, with or without --all. */
interface Bound {
  /** devices that are bound now */
  devices: BoundDevice[];
  /** with --all: devices that could not be bound */
  failed?: Failure[];
  /** files that --persist wrote */
  files: string[];
}
export type VfioBind = Bound | Script;

interface Unbound {
  /** devices that are back on their drivers now */
  devices: UnboundDevice[];
  /** with --all: devices that could not be given back */
  failed?: Failure[];
  /** files that were removed with --persist */
  files: string[];
}
export type VfioUnbind = Unbound | Script;

interface Restoration {
  /** devices that were put back */
  devices: Restored[];
  /** changes that could not be undone, and stay in the journal */
  left: Leftover[];
  /** with --all: devices that could not be given back */
  failed: Failure[];
}
export type VfioRestore = Restoration | Script;

/** A dry run of sriov. */
interface SriovSteps {
  /** PCI address of the physical function */
  bdf: string;
  /** virtual functions that there would be */
  numVfs: number;
  /** virtual functions that there are */
  previousVfs: number;
  /** the steps as lines of a shell script */
  script: string[];
}
export type VfioSriov = SriovResult | SriovSteps;

export interface VfioApply {
  /** one entry for each device of the file, in its order */
  devices: Applied[];
}

interface Register {
  /** the register as it was given */
  register: string;
  offset: number;
  /** bytes */
  width: number;
  value: bigint | number;
}
interface BarRegisters {
  /** PCI address */
  bdf: string;
  /** number of the BAR, or rom */
  bar: unknown;
  /** registers that were read or written, with their values */
  registers: Register[];
}
interface BarDump {
  /** PCI address */
  bdf: string;
  /** number of the BAR, or rom */
  bar: unknown;
  /** where the range begins */
  offset: unknown;
  /** the range in hexadecimal */
  bytes: Buffer;
}
interface BarPlan {
  /** PCI address */
  bdf: string;
  /** number of the BAR, or rom */
  bar: unknown;
  /** read, write or dump */
  verb: string;
  /** always false: a dry run accesses nothing */
  done: boolean;
}
export type VfioBar = BarRegisters | BarDump | BarPlan;

interface ConfigRegisters {
  /** PCI address */
  bdf: string;
  /** registers that were read or written, with their values */
  registers: unknown[];
}
interface ConfigSpace extends ConfigRegisters {
  /** the whole space in hexadecimal */
  bytes: Buffer;
  /** PCI capabilities with their offsets */
  capabilities: Capability[];
}
export type VfioConfig = ConfigSpace | ConfigRegisters;

export interface VfioIrq {
  /** interrupt types of the device */
  irqs: IrqType[];
}
export type VfioIrqRecord = IrqEvent | IrqType;

export interface VfioReset {
  /** PCI address */
  bdf: string;
  /** function: the device alone; hot: its slot or bus */
  method: 'function' | 'hot';
  /** devices that lose their state */
  devices: string[];
  /** false with --dry-run */
  done: boolean;
}
export type VfioSelftest = SelftestReport;

// dma

export interface DmaPlan extends Plan {
  /** ranges that mappings may use */
  ranges: Extent[];
  /** one entry for each mapping, with its address */
  maps: Placement[];
}
export type DmaMap = HolderInfo;
export type DmaList = HolderInfo;
export interface DmaUnmap {
  /** name of the mapping */
  unmapped: string;
  /** false: it was already unmapped */
  changed: boolean;
  /** false with --dry-run */
  done: boolean;
}

// uring

export type UringProbe = ProbeReport;
interface RegisteredEntry extends Omit<Entry, 'path'>, Partial<FileName> {}
export interface UringRegister {
  /** one entry for each slot that is no hole */
  entries: RegisteredEntry[];
}
export type UringRegisterRecord = RegisteredEntry;
export interface UringList {
  /** one entry for each ring */
  rings: ProcessRing[];
}
export type UringListRecord = ProcessRing;
export interface UringInspect {
  /** process ID */
  pid: number;
  /** one entry for each ring */
  rings: ProcessRing[];
}
export interface UringBench {
  /** one entry for each way of reading */
  ways: BenchResult[];
}
export type UringBenchRecord = BenchResult;

/** The name of a file. */
interface FileName {
  /** name of the file; bytes that are not UTF-8 appear as U+FFFD */
  path: string;
  /** the exact bytes in hexadecimal, if they are not UTF-8 */
  pathHex?: string;
}
/** Why a file failed. */
interface FileError {
  /** errno name */
  code: string;
  message: string;
}
interface FileSum extends FileName {
  /** name of the checksum */
  algorithm: string;
  /** the checksum in hexadecimal; absent if the file could not be read */
  digest?: string;
  /** bytes read */
  size: number;
  /** with --check: the checksum in the list */
  expected?: string;
  /** with --check: the file is as the list says */
  matches?: boolean;
  /** why the file could not be read */
  error?: FileError;
}
export interface UringSum {
  /** one entry for each file */
  files: FileSum[];
}
export type UringSumRecord = FileSum;
interface FileSync extends FileName {
  /** why the file could not be synced */
  error?: FileError;
}
export interface UringSync {
  /** one entry for each file */
  files: FileSync[];
}
export type UringSyncRecord = FileSync;

// nvmf

export type NvmfServe = ServeReport;
export type NvmfServeRecord = ServeReport;
/** The answer depends on the action: each has its own. */
export type NvmfCtl = ControlAnswer;
export type NvmfCtlRecord = NvmfCtl;
export interface NvmfDiscover {
  /** generation counter of the log */
  genctr: number;
  /** one entry for each subsystem and address; keys of `nvme discover -o json` */
  records: DiscoveryRecord[];
}
export type NvmfDiscoverRecord = DiscoveryRecord;
/** Keys of `nvme id-ctrl`, `id-ns` and their like with -o json. */
export type NvmfIdentify = { [key: string]: unknown };
/** Keys of nvme-cli for the same log page. */
export type NvmfLogs = { [key: string]: unknown };
export interface NvmfPing {
  /** round trips */
  count: number;
  /** microseconds */
  min: number;
  /** microseconds */
  avg: number;
  /** microseconds */
  max: number;
  /** duration of each round trip */
  microseconds: number[];
}
export type NvmfPingRecord = Ping;
interface BenchPlan {
  /** pattern of reads and writes */
  rw: string;
  /** bytes of a command */
  bs: number;
  /** commands under way in each queue */
  iodepth: number;
  /** seconds to measure */
  runtime: number;
}
export type NvmfBench = BenchReport | BenchPlan;
export type NvmfWrite = WriteSummary;
/** A case that a dry run lists. */
interface ConformCase {
  /** identifier of the case, for --only */
  id: string;
  /** what the case does */
  title: string;
  /** section of the specification */
  spec: string;
  /** answers that the specification allows */
  expected: string[];
}
export interface NvmfConform {
  /** NQN of the subsystem */
  target?: string;
  /** cases whose answer the specification allows */
  ok?: number;
  /** cases with another answer */
  differs?: number;
  /** cases that did not apply */
  skipped?: number;
  /** one entry for each case */
  cases: (CaseResult | ConformCase)[];
}
export type NvmfConformRecord = CaseResult | ConformCase;
interface Listening {
  event: 'listening';
  /** address of the proxy */
  address: string;
  /** port of the proxy */
  port: number;
}
export type NvmfProxyRecord = ProxyRecord | Listening;

// vhost-user

interface Sockets {
  /** one entry for each socket */
  sockets: SocketRow[];
}
interface Programs {
  /** with --installed: back-end programs of this host */
  installed: Installed[];
}
export type VhostUserList = Sockets | Programs;
export type VhostUserListRecord = SocketRow | Installed;
export type VhostUserProbe = ProbeResult;
export type VhostUserTraceRecord = TraceRecord | TraceEnd;
export interface VhostUserCheck {
  /** one entry for each case */
  cases: CheckResult[];
}
export type VhostUserCheckRecord = CheckResult;
interface Disks {
  /** several disks: one entry for each */
  disks: BlkReady[];
}
export type VhostUserServeBlk = BlkReady | Disks;
interface DiskReports {
  /** with list: one entry for each disk */
  disks: DiskReport[];
}
interface DiskCounters {
  /** with stats: one entry for each disk */
  disks: DiskStats[];
}
export type VhostUserCtl = DiskReports | DiskCounters | DiskChange | DiskGone | BlkConfigFile | LoadReport;
export type VhostUserShmemServe = ShmemReady;
interface PlannedMapping {
  /** region */
  shmid: number;
  /** offset in the region */
  offset: bigint;
  /** the file to map */
  file: string;
  /** always planned */
  state: string;
}
export type VhostUserShmemMap = EntryView | PlannedMapping;
export interface VhostUserShmemUnmap {
  /** region */
  shmid: number;
  /** offset in the region */
  offset: bigint;
  /** file that was mapped there; null if there was none */
  file: string | null;
  state: 'unmapped' | 'absent' | 'planned';
}
export type VhostUserShmemList = ControlState;
export type VhostUserShmemListRecord = EntryView;

export type VhostUserShmemWindowRecord = WindowRecord;

// migration

interface InputFile {
  /** name of the input, as it was given */
  file: string;
}
interface DomainXml extends InputFile {
  /** with --xml: the header of the save file */
  container: Container;
  /** with --xml: the domain as libvirt saved it */
  xml: string;
}
export type MigrationDump = (InputFile & Dump) | DomainXml;
interface ContainerRecord {
  type: 'container';
  /** what the stream was wrapped in: a libvirt save file, a qcow2 snapshot, or compressed data */
  container: Container;
}
interface RamRecord {
  type: 'ram';
  /** bytes of a page */
  pageSize: number;
  /** bytes of all blocks */
  total: bigint;
  /** RAM blocks with their pages */
  blocks: RamBlock[];
}
export type MigrationDumpRecord = WalkEvent | ContainerRecord | RamRecord;
interface OutputFile extends InputFile {
  /** name of the output, as it was given */
  output: string;
}
export type MigrationRam = OutputFile & Extracted;
export interface MigrationVerify extends InputFile, Verification {
  /** with --against: whether that destination loads the stream (null: unknown), and the obstacles with their cures */
  against?: Judged;
}
interface Judged extends Against {
  /** stream of the destination */
  file: string;
}
export type MigrationStat = InputFile & Statistics;
interface Compared {
  /** the first file */
  a: string;
  /** the second file */
  b: string;
}
export type MigrationDiff = Compared & Comparison;
export type MigrationConvert = OutputFile & Converted;
