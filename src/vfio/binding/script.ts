import { dirname } from 'node:path';
import { shellWord } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Census } from '../census/census.js';
import { readDevice } from '../devices/pci.js';
import { Store } from '../transaction/journal.js';
import { type Host, planMove, type SysfsWrite, stateOf } from '../transaction/move.js';
import { type BindPlan, plannedWrites } from './bind.js';
import { nodeOf } from './owner.js';
import type { PersistentEnd } from './persist.js';
import type { PersistFile } from './persist-files.js';
import { pending } from './restore.js';
import { type PlannedUnbind, planUnbind, unbindWrites } from './unbind.js';

/** What a dry run prints: the exact writes, in order. */
export interface Script {
  /** modules to load */
  modules: readonly string[];
  /** writes to sysfs for each device */
  devices: readonly { bdf: string; writes: readonly SysfsWrite[] }[];
  /** Commands after the writes, such as chown. */
  commands?: readonly (readonly string[])[];
  /** files to write */
  files?: readonly PersistFile[];
  /** files to remove */
  remove?: readonly string[];
}

/** The script as POSIX shell; it does what the command would do, without checks, journal and rollback. */
export function shellScript(script: Script): string {
  const lines = ['#!/bin/sh', 'set -eu'];
  for (const module of script.modules) lines.push(`modprobe ${shellWord(module)}`);
  for (const { bdf, writes } of script.devices) {
    lines.push(writes.length === 0 ? `# ${bdf}: nothing to do` : `# ${bdf}`);
    for (const { path, value } of writes) lines.push(`echo ${shellWord(value)} > ${shellWord(path)}`.replace("echo '' >", 'echo >'));
  }
  for (const words of script.commands ?? []) lines.push(words.map(shellWord).join(' '));
  for (const { path, mode, text } of script.files ?? []) {
    lines.push(
      `mkdir -p ${shellWord(dirname(path))}`,
      `cat > ${shellWord(path)} <<'VIOCTL_END'`,
      `${text}VIOCTL_END`,
      `chmod ${mode.toString(8)} ${shellWord(path)}`,
    );
  }
  for (const path of script.remove ?? []) lines.push(`rm -f ${shellWord(path)}`);
  return `${lines.join('\n')}\n`;
}

/** The script of a bind. The owner's chown names the node that the kernel will make. */
export function bindScript(root: Sysroot, plan: BindPlan): Script {
  const { owner } = plan;
  const nodes = new Set(plan.devices.flatMap(({ device, choice }) => (choice.vfio ? (nodeOf(root, device.bdf) ?? []) : [])));
  const commands = owner === undefined ? [] : [...nodes].map((node) => ['chown', `${owner.uid}:${owner.gid}`, node]);
  return { modules: plan.modules, devices: plannedWrites(plan), commands, files: plan.files };
}

/** The script of an unbind. */
export const unbindScript = (plan: readonly PlannedUnbind[], end: PersistentEnd = { write: [], remove: [] }): Script => ({
  modules: plan.flatMap(({ module }) => module ?? []),
  devices: unbindWrites(plan),
  files: end.write,
  remove: end.remove,
});

/** The script of a restore: what differs now from what the journals want back. */
export function restoreScript(host: Host, census: Census, all: boolean): Script {
  const devices = pending(host).replay.flatMap((journal) =>
    [...journal.devices].reverse().flatMap(({ bdf, before }) => {
      const device = readDevice(host.root, bdf);
      return device ? [{ bdf, writes: planMove(bdf, stateOf(device), before) }] : [];
    }),
  );
  if (!all) return { modules: [], devices };
  const bdfs = new Store(host.root).records().flatMap(({ bdf }) => (readDevice(host.root, bdf) ? [bdf] : []));
  const given = unbindScript(planUnbind(census, { bdfs }, { privileged: false }));
  return { modules: given.modules, devices: [...devices, ...given.devices] };
}
