import { codeOf, Exit, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { NativeSession } from '../../native/vfio.js';
import type { Census } from '../census/census.js';
import { describeHolder, holdersOf } from '../census/holders.js';
import { Processes } from '../census/processes.js';
import { groupNode, readGroup } from '../devices/group.js';
import { noIommu, readIommu } from '../devices/iommu.js';
import { type PciDevice } from '../devices/pci.js';
import { findDevice } from '../devices/select.js';
import { Session } from './session.js';
import { tokenBytes, tokenFor } from './token.js';

/** Which of the kernel's two ways to a device: group and container, or iommufd and the device's own node. */
export const apis = ['auto', 'group', 'cdev'] as const;
export type Api = (typeof apis)[number];

/** The nodes of a device, for one of the two ways. */
type Way = { api: 'cdev'; node: string } | { api: 'group'; node: string; noiommu: boolean };

/** The device's own node where the kernel has it and iommufd. */
function cdevNode(census: Census, device: PciDevice): string | undefined {
  const node = device.vfioDevice === undefined ? undefined : `/dev/vfio/devices/${device.vfioDevice}`;
  return node !== undefined && census.root.exists(node) && census.root.exists('/dev/iommu') ? node : undefined;
}

/** The same, needed. @throws VioError (7), or NOT_BOUND */
export function cdevOf(census: Census, device: PciDevice): string {
  requireBound(census, device);
  const node = cdevNode(census, device);
  if (node !== undefined) return node;
  throw new VioError(`${device.bdf}: this kernel offers no VFIO device node and iommufd`, {
    code: 'NO_CDEV',
    exit: Exit.unsupported,
    hint: 'it needs Linux 6.6 with CONFIG_VFIO_DEVICE_CDEV and CONFIG_IOMMUFD (modprobe iommufd); --api group works without',
  });
}

/** @throws VioError NOT_BOUND */
export function requireBound(census: Census, device: PciDevice): void {
  if (census.modules.isVfio(device.driver)) return;
  throw new VioError(
    `${device.bdf}: not bound to VFIO: ${device.driver === undefined ? 'it has no driver' : `its driver is ${device.driver}`}`,
    {
      code: 'NOT_BOUND',
      hint: `vioctl vfio bind ${device.bdf}`,
    },
  );
}

function wayTo(census: Census, device: PciDevice, api: Api): Way {
  const { root } = census;
  if (api !== 'group') {
    const node = api === 'cdev' ? cdevOf(census, device) : cdevNode(census, device);
    if (node !== undefined) return { api: 'cdev', node };
  }
  if (device.group === undefined) throw noIommu(readIommu(root));
  const noiommu = `/dev/vfio/noiommu-${device.group}`;
  return root.exists(noiommu)
    ? { api: 'group', node: noiommu, noiommu: true }
    : { api: 'group', node: groupNode(device.group), noiommu: false };
}

/**
 * Opens a device through VFIO. The caller closes the session.
 * @param text PCI address as the user wrote it
 * @param shared open devices whose mappings this one joins; one of its own group lends it the group, which opens only once
 * @param token VF token of the user; the one that vioctl set unless given
 * @throws VioError that names what is in the way: not bound, held by whom, not viable because of which member, no permission
 */
export function openSession(
  census: Census,
  text: string,
  api: Api = 'auto',
  shared: readonly Session[] = [],
  token: string | undefined = undefined,
): Session {
  const device = findDevice(census.root, text);
  requireBound(census, device);
  const secret = tokenFor(census, device, token);
  const way = wayTo(census, device, api);
  const { vfio } = native();
  const at = (path: string): string => census.root.path(path);
  const partner = shared.find(({ group }) => group === device.group) ?? shared[0];
  let session: NativeSession;
  try {
    session =
      way.api === 'cdev'
        ? vfio.openDevice(at('/dev/iommu'), at(way.node), partner?.handle, secret === undefined ? undefined : tokenBytes(secret))
        : vfio.openGroup(
            at('/dev/vfio/vfio'),
            at(way.node),
            secret === undefined ? device.bdf : `${device.bdf} vf_token=${secret}`,
            way.noiommu,
            partner?.handle,
          );
  } catch (err) {
    throw explain(census, device, way, err, secret !== undefined);
  }
  return new Session(device.bdf, session, device.group);
}

const BIND_IOMMUFD = 'VFIO_DEVICE_BIND_IOMMUFD';
const callOf = (err: unknown): string => String((err as { syscall?: unknown }).syscall ?? '');

/** Refusals of the VF token; a cdev's bind says so too, since Linux 6.17. */
const tokenCalls = ['VFIO_GROUP_GET_DEVICE_FD', BIND_IOMMUFD];

/** @param tried a VF token was given to the kernel */
function explain(census: Census, device: PciDevice, way: Way, err: unknown, tried: boolean): VioError {
  const { bdf } = device;
  const code = codeOf(err);
  const call = callOf(err);
  const message = err instanceof Error ? err.message : String(err);
  if (call === 'open' && message.includes('/dev/vfio/vfio') && (code === 'ENOENT' || code === 'ENODEV'))
    return new VioError(`${bdf}: no /dev/vfio/vfio: ${code}`, {
      code: code,
      exit: Exit.unsupported,
      hint: 'modprobe vfio_iommu_type1',
      cause: err,
    });
  // The kernel claims the whole group for an iommufd: a member on a host driver makes that fail.
  const claimed = call === BIND_IOMMUFD && (code === 'EPERM' || code === 'EBUSY');
  if (claimed && blockersOf(census, device).length > 0) return notViable(census, device, err);
  if (code === 'EBUSY') return held(census, device, way, err);
  // The kernel's answer where the device's node is open and bound already.
  if (code === 'EINVAL' && call === BIND_IOMMUFD && holdersOf(census.root, new Processes(census.root), device).length > 0)
    return held(census, device, way, err);
  if (call === 'open' && (code === 'EACCES' || code === 'EPERM')) {
    const hint =
      way.api === 'group' && way.noiommu
        ? 'without an IOMMU it takes CAP_SYS_RAWIO, and the kernel is tainted'
        : `vioctl vfio bind ${bdf} --owner USER gives the node to a user`;
    return wrap(`${bdf}: open ${way.node}`, err, { hint });
  }
  if (call === 'open') return wrap(`${bdf}: open ${way.node}`, err, { hint: `vioctl vfio show ${bdf}` });
  if (call === 'VFIO_GROUP_GET_STATUS' && code === 'EPERM') return notViable(census, device, err);
  if ((call === 'VFIO_SET_IOMMU' || call === BIND_IOMMUFD) && code === 'EPERM')
    return wrap(`${bdf}: ${call}: interrupts cannot be isolated (no interrupt remapping)`, err, {
      hint: `enable it in the firmware set-up; allow_unsafe_interrupts=1 of ${way.api === 'cdev' ? 'iommufd' : 'vfio_iommu_type1'} lets devices forge interrupts`,
    });
  if (call === 'VFIO_CHECK_EXTENSION')
    return new VioError(`${bdf}: the module vfio_iommu_type1 is missing`, {
      code: 'ENODEV',
      exit: Exit.unsupported,
      hint: 'modprobe vfio_iommu_type1',
      cause: err,
    });
  if (tokenCalls.includes(call) && code === 'EACCES') {
    const what =
      device.physfn === undefined
        ? 'its virtual functions are in use'
        : `it is a virtual function of ${device.physfn}, which is on VFIO itself`;
    return wrap(`${bdf}: ${tried ? 'the VF token is not the right one' : 'it opens with a VF token only'}: ${what}`, err, {
      hint: '--vf-token UUID, as the program that has the physical function set it',
    });
  }
  return wrap(`${bdf}: ${call || 'open'}`, err);
}

function held(census: Census, device: PciDevice, way: Way, err: unknown): VioError {
  // As they are now: the census may be older.
  const members =
    device.group === undefined ? [device] : readGroup(census.root, census.modules, device.group).members.filter((m) => m.vfio);
  const processes = new Processes(census.root);
  const holders = members.flatMap((member) => holdersOf(census.root, processes, findDevice(census.root, member.bdf)));
  const seen = [...new Map(holders.map((holder) => [holder.pid, holder])).values()];
  const who = seen.length === 0 ? 'a process that is not visible here' : seen.map(describeHolder).join(', ');
  return new VioError(`${device.bdf}: ${way.node} is held by ${who}: EBUSY`, {
    code: 'EBUSY',
    exit: Exit.refused,
    hint: 'end that program first; a group is opened by one program at a time, and through one of the two APIs',
    details: { holders: seen },
    cause: err,
  });
}

/** Members of its group that keep VFIO from using it. */
const blockersOf = (census: Census, device: PciDevice) =>
  device.group === undefined ? [] : readGroup(census.root, census.modules, device.group).members.filter((member) => member.blocks);

function notViable(census: Census, device: PciDevice, err: unknown): VioError {
  const blocking = blockersOf(census, device);
  const names = blocking.map((member) => `${member.bdf} (driver ${member.driver})`).join(', ') || 'a member on a host driver';
  return new VioError(`${device.bdf}: IOMMU group ${device.group} is not viable: ${names} shares it`, {
    code: 'NOT_VIABLE',
    exit: Exit.refused,
    hint: blocking.length > 0 ? `vioctl vfio bind ${blocking.map((member) => member.bdf).join(' ')}` : `vioctl vfio show ${device.bdf}`,
    details: { group: device.group, blocking: blocking.map(({ bdf, driver }) => ({ bdf, driver })) },
    cause: err,
  });
}
