import { printable } from '../../common/escape.js';
import { counted, formatSize, hex64 } from '../../common/units.js';
import type { Applied } from '../../vfio/apply/apply.js';
import type { Failure } from '../../vfio/binding/batch.js';
import type { BoundDevice } from '../../vfio/binding/bind.js';
import type { Restored } from '../../vfio/binding/restore.js';
import type { UnboundDevice } from '../../vfio/binding/unbind.js';
import { describeHolder } from '../../vfio/census/holders.js';
import type { Diagnosis } from '../../vfio/inventory/doctor.js';
import type { DeviceReport } from '../../vfio/inventory/inventory.js';
import type { SriovResult } from '../../vfio/sriov/sriov.js';

/** The lines that `vfio show` prints for people; `--json` has the same data. */
export function showLines(doc: DeviceReport): string[] {
  const lines: string[] = [];
  const add = (title: string, text: string | number | undefined) => {
    if (text !== undefined && text !== '') lines.push(`${title.padEnd(12)} ${text}`);
  };
  const name = [doc.vendorName, doc.deviceName].filter((part) => part !== undefined).join(' ');
  add('device', `${doc.bdf}  ${doc.className} [${doc.class}]  ${doc.id}${name === '' ? '' : `  ${printable(name)}`}`);
  add('subsystem', `${doc.subsystem}, revision ${doc.revision}`);
  add('driver', `${doc.driver ?? 'none'}${doc.override === undefined ? '' : ` (driver_override ${printable(doc.override)})`}`);
  if (doc.busy) add('BUSY', 'the kernel holds it locked: a driver is being unbound or probed and does not come back');
  add('VFIO driver', doc.vfioDriver);
  add('NUMA node', doc.numaNode);
  const idle = doc.powerControl === 'auto' ? `may sleep${doc.d3coldAllowed === false ? ', but not in D3cold' : ''}` : undefined;
  const awake = doc.powerControl === 'on' ? 'kept awake' : idle;
  add('power', [doc.powerState, doc.runtimeStatus, awake].filter((part) => part !== undefined).join(', '));
  add('reset', doc.resetMethods.join(', '));
  if (doc.physfn !== undefined) add('VF of', doc.physfn);
  if (doc.vfsTotal > 0) add('VFs', `${doc.vfs.length} of ${doc.vfsTotal}${doc.vfs.length ? `: ${doc.vfs.join(', ')}` : ''}`);
  for (const bar of doc.bars) {
    const kind = bar.kind === 'io' ? 'I/O ports' : `memory, ${bar.width} bits${bar.prefetchable ? ', prefetchable' : ''}`;
    add(`BAR ${bar.index}`, `${hex64(bar.start)}  ${formatSize(bar.size)}  ${kind}`);
  }
  const { intx, msi, msix } = doc.interrupts;
  add('interrupts', [intx && 'INTx', msi > 0 && `MSI ${msi}`, msix > 0 && `MSI-X ${msix}`].filter(Boolean).join(', '));
  for (const cap of doc.capabilities)
    add('capability', `${hex64(cap.offset).padEnd(5)} ${cap.name}${cap.detail === undefined ? '' : ` (${cap.detail})`}`);
  const group = doc.iommuGroup;
  if (!group) add('IOMMU group', 'none');
  else {
    add('IOMMU group', `${group.id}${group.type === undefined ? '' : ` (${group.type})`}, ${group.viable ? 'viable' : 'NOT viable'}`);
    for (const member of group.members) {
      const state = member.bridge ? 'bridge, ignored' : member.blocks ? `BLOCKS the group: on host driver ${member.driver}` : 'ok';
      add('  member', `${member.bdf}  ${member.id}  ${member.driver ?? 'no driver'}  ${state}`);
      if (member.blocks && member.bdf !== doc.bdf) add('    fix', member.fix);
    }
    for (const region of group.reserved) add('  reserved', `${hex64(region.start)}-${hex64(region.end)} ${region.type}`);
    add('  node', group.node);
  }
  add('disks', doc.blockDevices.map(printable).join(', '));
  add('interfaces', doc.interfaces.map(printable).join(', '));
  for (const use of doc.uses) {
    add('used', `${use.message} [${use.check}]`);
    add('  fix', use.fix);
  }
  for (const holder of doc.holders) add('held by', describeHolder(holder));
  return lines;
}

/** One line for each device that bind looked at. */
export const boundLines = (devices: readonly BoundDevice[]): string[] =>
  devices.map((device) => {
    const where = [device.node, device.cdev].filter((node) => node !== undefined).join(', ');
    const was = device.already ? 'already so' : `was on ${device.previousDriver ?? 'no driver'}`;
    const allowed =
      device.allowed.length === 0 ? '' : `; allowed: ${[...new Set(device.allowed.map((finding) => finding.check))].join(', ')}`;
    return `${device.bdf}: ${device.driver} (${was})${where === '' ? '' : `, ${where}`}${allowed}`;
  });

/** One line for each device that unbind looked at. */
export const unboundLines = (devices: readonly UnboundDevice[]): string[] =>
  devices.map(({ bdf, driver, previousDriver, already }) =>
    already
      ? `${bdf}: ${driver ?? 'no driver'} (already so)`
      : `${bdf}: ${driver ?? 'no driver'} (was on ${previousDriver ?? 'no driver'})`,
  );

/** One line for each device that restore looked at. */
export const restoredLines = (devices: readonly Restored[]): string[] =>
  devices.length === 0
    ? ['nothing to restore']
    : devices.map(({ bdf, operation, step, driver, outcome }) => {
        if (outcome === 'running') return `${bdf}: ${operation} is still running, left alone`;
        if (outcome === 'gone') return `${bdf}: gone (unplugged, renumbered or replaced): what was kept about it is dropped`;
        if (outcome === 'other boot') return `${bdf}: the journal was of an earlier boot, removed`;
        const what = operation === 'bound' ? 'given back' : `restored (${operation} was cut short at step ${step})`;
        return `${bdf}: ${what}, ${driver ?? 'no driver'}`;
      });

/** One line for each item of a batch that failed. */
export const failureLines = (failed: readonly Failure[]): string[] =>
  failed.map(({ bdf, message }) => `${bdf}: FAILED: ${message.replace(`${bdf}: `, '')}`);

/** The findings of `vfio doctor`, each with what to do. */
export const doctorLines = (found: readonly Diagnosis[]): string[] =>
  found.flatMap(({ level, message, fix }) => [`${level.padEnd(5)} ${message}`, ...(fix === undefined ? [] : [`      do: ${fix}`])]);

/** The virtual functions of a physical one. */
export function sriovResultLines({ bdf, numVfs, previousVfs, already, vfs, vfToken, files }: SriovResult): string[] {
  const was = already || previousVfs === numVfs ? '' : ` (${previousVfs} before)`;
  return [
    `${bdf}: ${counted(numVfs, 'virtual function')}${was}`,
    ...(vfToken === undefined ? [] : [`  VF token ${vfToken}`]),
    ...vfs.map(({ bdf, index, driver, mac, group }) => {
      const parts = [driver ?? 'no driver', ...(group === undefined ? [] : [`group ${group}`]), ...(mac === undefined ? [] : [mac])];
      return `  ${String(index).padStart(3)}  ${bdf}  ${parts.join(', ')}`;
    }),
    ...files.map((file) => `${numVfs === 0 ? 'removed' : 'wrote'} ${file}`),
  ];
}

/** One line for each device that apply looked at, and one for each difference. */
export const appliedLines = (devices: readonly Applied[]): string[] =>
  devices.flatMap(({ device, bdf, outcome, differences, restored = [], error }) => [
    `${bdf ?? device}: ${error ? `FAILED: ${error.message.replace(`${bdf}: `, '')}` : outcome}${bdf !== undefined && bdf !== device ? ` (${device})` : ''}`,
    ...(restored.length > 0 ? restoredLines(restored).map((line) => `  first ${line}`) : []),
    ...differences.map(({ what, is, wanted }) => `  ${what.padEnd(10)} ${is} -> ${wanted}`),
  ]);
