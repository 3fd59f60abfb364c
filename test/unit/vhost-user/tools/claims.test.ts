import { claimsOf } from '../../../../src/vhost-user/tools/claims.js';

/** Command lines as people, libvirt and container tools write them. */
const q = 'qemu-system-x86_64';
const json = (value: unknown): string => JSON.stringify(value);
const chardev = (path: string) => ['-chardev', `socket,id=c,path=${path}`];
const unix = (id: string, path: string): string =>
  json({ id, backend: { type: 'socket', data: { addr: { type: 'unix', data: { path } } } } });
type Case = [what: string, argv: string[], claims: [path: string, device: string | null, role: 'server' | 'user'][]];

test.each<Case>([
  ['-netdev vhost-user', [q, ...chardev('/n'), '-netdev', 'vhost-user,id=n0,chardev=c'], [['/n', 'net', 'user']]],
  ['-netdev type=', [q, ...chardev('/n'), '-netdev', 'type=vhost-user,id=n0,chardev=c,queues=2'], [['/n', 'net', 'user']]],
  ['two dashes', [q, '--netdev', 'vhost-user,chardev=c', '--chardev', 'socket,id=c,path=/n,server=on'], [['/n', 'net', 'user']]],
  [
    'libvirt, everything in JSON',
    [q, '-chardev', unix('charnet0', '/n'), '-netdev', json({ type: 'vhost-user', chardev: 'charnet0', id: 'hostnet0' })],
    [['/n', 'net', 'user']],
  ],
  [
    'libvirt, devices in JSON only',
    [q, '-chardev', 'socket,id=chr-vu-fs0,path=/f', '-device', json({ driver: 'vhost-user-fs-pci', id: 'fs0', chardev: 'chr-vu-fs0' })],
    [['/f', 'fs', 'user']],
  ],
  ['a block device', [q, ...chardev('/b'), '-device', 'vhost-user-blk-pci,chardev=c'], [['/b', 'blk', 'user']]],
  ['a transitional one', [q, ...chardev('/b'), '-device', 'vhost-user-blk-pci-non-transitional,chardev=c'], [['/b', 'blk', 'user']]],
  ['s390', [q, ...chardev('/b'), '-device', 'vhost-user-fs-ccw,chardev=c'], [['/b', 'fs', 'user']]],
  ['the device of any type', [q, ...chardev('/t'), '-device', 'vhost-user-test-device-pci,chardev=c,virtio-id=27'], [['/t', null, 'user']]],
  ['crypto', [q, ...chardev('/c'), '-object', 'cryptodev-vhost-user,id=k,chardev=c'], [['/c', 'crypto', 'user']]],
  ['a comma in the path', [q, '-chardev', 'socket,id=c,path=/a,,b', '-netdev', 'vhost-user,chardev=c'], [['/a,b', 'net', 'user']]],
  [
    'a monitor beside it is none',
    [q, ...chardev('/n'), '-chardev', 'socket,id=m,path=/mon', '-mon', 'chardev=m', '-netdev', 'vhost-user,chardev=c'],
    [['/n', 'net', 'user']],
  ],
  ['a QEMU without vhost-user', [q, ...chardev('/mon'), '-mon', 'chardev=c', '-netdev', 'user,id=n'], []],
  [
    'qemu-storage-daemon',
    [
      'qemu-storage-daemon',
      '--chardev',
      'socket,id=m,path=/mon',
      '--export',
      'type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=/b',
    ],
    [['/b', 'blk', 'server']],
  ],
  ['virtiofsd', ['/usr/libexec/virtiofsd', '--socket-path=/f', '--shared-dir=/x'], [['/f', 'fs', 'server']]],
  ['virtiofsd, words apart', ['virtiofsd', '--socket-path', 'rel.sock', '--shared-dir', '/x'], [['rel.sock', 'fs', 'server']]],
  ['vsock and its other side', ['vhost-device-vsock', '--guest-cid=4', '--uds-path=/v', '--socket=/s'], [['/s', 'vsock', 'server']]],
  ['vsock, words apart', ['vhost-device-vsock', '--uds-path', '/v', '--socket', '/s'], [['/s', 'vsock', 'server']]],
  ['vsock, several', ['vhost-device-vsock', '--vm', 'guest-cid=3,uds-path=/v,socket=/s'], [['/s', 'vsock', 'server']]],
  [
    'cloud-hypervisor',
    [
      'cloud-hypervisor',
      '--api-socket',
      '/api',
      '--net',
      'vhost_user=true,socket=/n',
      '--fs',
      'tag=t,socket=/f',
      '--disk',
      'vhost_user=true,socket=/b',
    ],
    [
      ['/n', 'net', 'user'],
      ['/f', 'fs', 'user'],
      ['/b', 'blk', 'user'],
    ],
  ],
  ['crosvm', ['crosvm', 'run', '--socket', '/ctl', '--vhost-user', 'type=net,socket=/n'], [['/n', 'net', 'user']]],
  ['DPDK', ['dpdk-testpmd', '--vdev', 'net_vhost0,iface=/n,queues=1'], [['/n', 'net', 'server']]],
  ['passt, as libvirt starts it', ['/usr/bin/passt', '--one-off', '--socket', '/n', '--vhost-user'], [['/n', 'net', 'server']]],
  ['passt, in short', ['passt.avx2', '--vhost-user', '-s', '/n', '-f'], [['/n', 'net', 'server']]],
  ['passt without vhost-user', ['passt', '--socket', '/n'], []],
  ['another program', ['sshd', '-f', '/x'], []],
])('%s', (_what, argv, expected) => {
  const sockets = /^(\/[nbftcsv]|\/a,b|\/mon|\/api|\/ctl|rel\.sock)$/;
  const found = claimsOf(argv).filter((c) => sockets.test(c.path));
  expect(found.map((c) => [c.path, c.device, c.role])).toEqual(expected);
});

test.each([
  [['node', '/x/run.js', 'vhost-user', 'serve', 'blk', '/b', '--file', '/d'], '/b', 'blk'],
  [['vioctl', 'vhost-user', 'serve', 'blk', '--socket-path=/b', '--blk-file=/d'], '/b', 'blk'],
  [['vioctl', 'vhost-user', 'serve', 'blk', '--socket-path', '/b', '--file', '/d'], '/b', 'blk'],
  [['vioctl', 'vhost-user', 'serve', 'blk', '/b=/d', '/c=/e,ro'], '/c', 'blk'],
  [['vioctl', 'vhost-user', 'shmem', 'serve', '/p', '--pmem', '--control', '/ctl'], '/p', 'pmem'],
  [['vioctl', 'vhost-user', 'shmem', 'serve', '/p', '--region', '0=1M'], '/p', null],
] as const)('our own servers: %j', (argv, path, device) => {
  expect(claimsOf(argv)).toContainEqual({ path, device, role: 'server' });
  expect(claimsOf(argv).map((c) => c.path)).not.toContain('/ctl');
});
