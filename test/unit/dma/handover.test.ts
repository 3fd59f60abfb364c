import { apiOf, handOver } from '../../../src/dma/handover.js';
import { parseHolderInfo } from '../../../src/dma/holder.js';
import { execReplacing } from '../../../src/launch/handover.js';

const info = {
  bdf: '0000:01:00.0',
  api: 'group',
  ranges: [],
  entries: 1,
  memlock: 65536,
  maps: [{ name: 'ring', iova: 0x10000n, size: 65536 }],
};
const fds = new Map([
  ['vfio-container', 20],
  ['vfio-group', 21],
  ['vfio-device', 25],
  ['vfio-device-1', 26],
  ['dma-ring', 30],
]);

test('words, environment and order of descriptors', () => {
  const words = [
    './driver',
    '{device}:{device0}:{device1}',
    '--fd={ring.fd}',
    '{ring.iova}',
    '{ring.size}',
    '{container}',
    '{group}',
    '{other.fd}',
    '{}',
  ];
  const { argv, env, fds: order } = handOver(words, fds, info);
  expect(argv).toEqual(['./driver', '5:5:6', '--fd=7', '0x10000', '65536', '3', '4', '{other.fd}', '{}']);
  expect(order).toEqual([20, 21, 25, 26, 30]);
  expect(env.LISTEN_FDS).toBe('5');
  expect(env.LISTEN_FDNAMES).toBe('vfio-container:vfio-group:vfio-device:vfio-device-1:dma-ring');
  expect(JSON.parse(env.VIOCTL_VFIO!)).toMatchObject({
    bdf: '0000:01:00.0',
    maps: [{ name: 'ring', iova: '0x10000', size: 65536, fd: 7 }],
    fds: { 'vfio-container': 3, 'vfio-device': 5 },
  });
});

test('a descriptor that is not there is wrong usage', () => {
  expect(() => handOver(['{iommufd}'], fds, info)).toThrow(expect.objectContaining({ exit: 2 }));
  expect(() => handOver(['{device2}'], fds, info)).toThrow(expect.objectContaining({ exit: 2 }));
});

test.each([
  [['{iommufd}', '{device}'], 'cdev'],
  [['{group}'], 'group'],
  [['x{container}y'], 'group'],
  [['{device}', '{iommufd', 'iommufd}'], undefined],
])('%j asks for %s', (words, api) => {
  expect(apiOf(words)).toBe(api);
});

test('both APIs at once are wrong usage', () => {
  expect(() => apiOf(['{iommufd}', '{group}'])).toThrow(expect.objectContaining({ exit: 2 }));
});

test('a program that is not there leaves this process as it was', () => {
  expect(() => execReplacing({ argv: ['/nonexistent/program'], env: {}, fds: [0] }, {})).toThrow(
    expect.objectContaining({ code: 'ENOENT', exit: 127 }),
  );
  expect(() => execReplacing({ argv: ['/etc/passwd'], env: {}, fds: [0] }, {})).toThrow(
    expect.objectContaining({ code: 'EACCES', exit: 126 }),
  );
});

test('the answer of a holder becomes its document again', () => {
  const answer = {
    bdf: 'x',
    api: 'cdev',
    ioas: 2,
    ranges: [{ start: '0x0', end: '0xfff' }],
    maps: [{ name: 'a', iova: '0x1000', size: 1 }],
    entries: 1,
    memlock: 1,
  };
  expect(parseHolderInfo(answer)).toMatchObject({ ioas: 2, ranges: [{ start: 0n, end: 0xfffn }], maps: [{ iova: 0x1000n }] });
  for (const bad of [{}, { ranges: 1, maps: [] }, { ranges: [{ start: 'x', end: 'y' }], maps: [] }])
    expect(() => parseHolderInfo(bad)).toThrow(expect.objectContaining({ exit: 5 }));
});
