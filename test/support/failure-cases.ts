/**
 * The ways in which binding a device, opening it, mapping for it and using it can fail, and the guests' tests that show each
 * on a real kernel. test/unit/vfio/binding/failure-cases.test.ts keeps the names true.
 */
export type Source =
  /** Cases of test/vm/vfio, run by vfio-bind.test.ts on every kernel. */
  | 'bind'
  /** Cases of test/vm/session, run by vfio-failures.test.ts: `group` on every kernel, `cdev` on 6.12. */
  | 'session'
  /** Tests of the file of that name in test/vm, with the kernels on which they run. */
  | { file: string; kernels: string };

export interface FailureCase {
  number: number;
  what: string;
  /** Tests by name; empty where none can show it. */
  shown: readonly (readonly [Source, string])[];
  /** Why no test shows it. */
  why?: string;
}

const bind = (name: string) => ['bind', name] as const;
const session = (name: string) => ['session', name] as const;
const test = (file: string, kernels: string, name: string) => [{ file, kernels }, name] as const;

export const FAILURE_CASES: readonly FailureCase[] = [
  { number: 1, what: 'an address that is none', shown: [bind('an address that is none')] },
  { number: 2, what: 'no such device', shown: [bind('no such device: the nearest are named')] },
  { number: 3, what: 'no module for VFIO', shown: [bind('no module for VFIO')] },
  {
    number: 4,
    what: 'no IOMMU',
    shown: [test('vfio-bind.test.ts', '6.12', 'without an IOMMU: list warns, bind and doctor end with status 7, and all say why')],
  },
  { number: 5, what: 'no such driver', shown: [bind('no such driver')] },
  { number: 6, what: 'a driver that does not list the id', shown: [bind('a driver that does not list the id')] },
  {
    number: 7,
    what: 'bound already',
    shown: [bind('bind, a second bind that says so, another NVMe of the same id untouched, unbind to the earlier driver')],
  },
  {
    number: 8,
    what: 'another driver is quicker',
    shown: [bind('another driver takes the device between unbind and bind: it is taken back')],
  },
  {
    number: 9,
    what: 'binding by id takes other devices along: never used',
    shown: [bind('bind, a second bind that says so, another NVMe of the same id untouched, unbind to the earlier driver')],
  },
  { number: 10, what: 'a device on the deny list of vfio-pci', shown: [], why: 'no emulated device has an id of that list' },
  {
    number: 11,
    what: 'a file system, swap, LVM, or an open disk',
    shown: [
      bind('a mounted file system'),
      bind('active swap'),
      bind('a device-mapper device on it'),
      bind('a process that has the disk open'),
    ],
  },
  { number: 12, what: 'data on a disk that nobody uses', shown: [], why: 'it is no failure: such a disk is bound, without a warning' },
  {
    number: 13,
    what: 'a network interface in use',
    shown: [
      bind('the IPv4 default route'),
      bind('the route of the ssh session we are in'),
      bind('an interface in a bridge, and the default route over it'),
      bind('a VLAN on its interface'),
    ],
  },
  {
    number: 14,
    what: 'the boot disk; a bridge',
    shown: [bind('the disk that holds /boot: two checks'), bind('a bridge'), bind('a bridge, whatever is allowed')],
  },
  {
    number: 15,
    what: 'a physical function with virtual functions',
    shown: [session('a virtual function: no reset of the bus without its physical function; bind refuses that one')],
  },
  {
    number: 16,
    what: 'an unbind that hangs',
    shown: [bind('a holder that never lets go (--ask): reported, and restore completes the way back')],
  },
  {
    number: 17,
    what: 'a group that is not viable',
    shown: [session('a group with a member on a host driver'), bind('a member of the group on a host driver')],
  },
  { number: 18, what: 'not bound to VFIO', shown: [session('a device without driver, and one on a host driver')] },
  {
    number: 19,
    what: 'held by somebody',
    shown: [session('a device that this or another program holds: named, with its descriptor or its mapping')],
  },
  { number: 20, what: 'no permission on the node', shown: [session('a user who may not open the node')] },
  {
    number: 21,
    what: 'no-IOMMU mode without CAP_SYS_RAWIO',
    shown: [test('vfio-session.test.ts', '6.12', 'kernel 6.12 without IOMMU: the self-tests with physical addresses, and no mapping')],
  },
  { number: 22, what: 'a node whose driver has left', shown: [session('a node whose driver has left')] },
  {
    number: 23,
    what: 'a container that is none',
    shown: [session('a container that is none, a group that another container has, a name that the group does not have')],
  },
  {
    number: 24,
    what: 'a group that is in another container',
    shown: [
      session('a container that is none, a group that another container has, a name that the group does not have'),
      session('exec: several devices, of several groups and of one, share the mappings'),
    ],
  },
  { number: 25, what: 'no IOMMU back-end', shown: [session('the module of the IOMMU back-end is not loaded')] },
  {
    number: 26,
    what: 'no interrupt remapping',
    shown: [test('vfio-failures.test.ts', '6.12', 'without interrupt remapping: EPERM that says why, through both APIs')],
  },
  {
    number: 27,
    what: 'a name that the group does not have',
    shown: [session('a container that is none, a group that another container has, a name that the group does not have')],
  },
  { number: 28, what: 'one API while the other has the device', shown: [session('one API while the other has the device')] },
  { number: 29, what: 'mapping before the IOMMU is set', shown: [session('a container without IOMMU back-end maps nothing')] },
  {
    number: 30,
    what: 'overlapping mappings',
    shown: [session('an overlap names the mapping in the way; the kernel has EEXIST for it')],
  },
  {
    number: 31,
    what: 'a reserved window',
    shown: [session('the MSI window, and beyond the last address: named; the kernel has EINVAL for them')],
  },
  {
    number: 32,
    what: 'beyond the last address',
    shown: [session('the MSI window, and beyond the last address: named; the kernel has EINVAL for them')],
  },
  { number: 33, what: 'no whole pages', shown: [session('sizes and addresses that are no whole pages, and none at all')] },
  { number: 34, what: 'addresses that wrap', shown: [session('addresses that wrap around 2^64')] },
  {
    number: 35,
    what: 'memory with a hole, or that may only be read',
    shown: [session('a file that shrinks while it is mapped, and a file that may only be read')],
  },
  {
    number: 36,
    what: 'RLIMIT_MEMLOCK',
    shown: [test('dma.test.ts', '6.1, 6.12, 7', 'locked memory of a user: forecast before anything is pinned, and the kernel agrees')],
  },
  { number: 37, what: '65,535 entries', shown: [test('dma.test.ts', '6.1, 6.12, 7', '65,535 entries, then ENOSPC that says what to do')] },
  { number: 38, what: 'no huge pages', shown: [session('huge pages: none are there, then they are, and the mapping has them')] },
  {
    number: 39,
    what: 'unmapping a part',
    shown: [session('an unmap that the kernel refuses leaves the mapping in the table: status 8')],
  },
  {
    number: 40,
    what: 'an unmap that fails',
    shown: [session('an unmap that the kernel refuses leaves the mapping in the table: status 8')],
  },
  { number: 41, what: 'the errors of iommufd', shown: [session('what the calls of iommufd refuse')] },
  {
    number: 42,
    what: 'interrupts of two kinds, too many, none',
    shown: [session('interrupts: one kind at a time, no more vectors than there are, none that the device lacks')],
  },
  {
    number: 43,
    what: 'no reset; a hot reset without proof',
    shown: [
      session('a device without any reset; one whose bus can be reset, with proof by group or by iommufd'),
      session('a virtual function: no reset of the bus without its physical function; bind refuses that one'),
    ],
  },
  {
    number: 44,
    what: 'beyond a region; a region that cannot be mapped',
    shown: [session('registers beyond a region, a region that is not there, a port region')],
  },
  {
    number: 45,
    what: 'something is left at the end',
    shown: [
      session('a device that this or another program holds: named, with its descriptor or its mapping'),
      session('closing in the order interrupts, BAR, mappings, device, group, container; also on garbage collection'),
    ],
  },
  {
    number: 46,
    what: 'a host driver for a member of a held group',
    shown: [bind('a host driver for a member of a held group: EBUSY, undone')],
  },
  { number: 47, what: 'the device is gone', shown: [session('a device that does not answer any more: EIO, not values')] },
  {
    number: 48,
    what: 'an interrupted bind',
    shown: [
      bind('kill -9 of bind and of unbind at every step and restore; SIGINT at every step'),
      bind('an interrupted device is refused until restore'),
    ],
  },
  { number: 49, what: '/sys is read-only', shown: [bind('/sys is read-only')] },
];
