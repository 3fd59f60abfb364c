import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../../src/common/sysroot.js';
import {
  type Aperture,
  addressWidth,
  allowed,
  entryLimit,
  pagesOf,
  parseAvoid,
  parsePages,
  parseReservedRegions,
  readAperture,
  widthRange,
} from '../../../src/dma/aperture.js';
import { plan } from '../../../src/dma/layout.js';
import { parseSpecs } from '../../../src/dma/spec.js';

const K = 1024n;
const M = K * K;
const G = K * M;
const pages = [4n * K, 2n * M, G];
const MSI = '0x00000000fee00000 0x00000000feefffff msi\n';
const aperture = (bits: number, text = MSI): Aperture => {
  const reserved = parseReservedRegions(text);
  return { ranges: allowed([widthRange(bits)], reserved), reserved, pages, limit: entryLimit };
};
const layout = (bits: number, ...specs: string[]) => plan(aperture(bits), parseSpecs(specs));

describe('reserved regions', () => {
  test('ranges are the width less reserved regions; relaxable ones stay', () => {
    const text = `${MSI}0x00000000000a0000 0x00000000000fffff direct\n0x0000000010000000 0x000000001fffffff direct-relaxable\n\n`;
    expect(allowed([widthRange(39)], parseReservedRegions(text))).toEqual([
      { start: 0n, end: 0x9ffffn },
      { start: 0x100000n, end: 0xfedfffffn },
      { start: 0xfef00000n, end: 0x7fffffffffn },
    ]);
  });

  test.each([
    [
      'overlapping, unordered',
      '0x3000 0x5fff reserved\n0x1000 0x3fff reserved',
      [
        { start: 0n, end: 0xfffn },
        { start: 0x6000n, end: 0xffffn },
      ],
    ],
    ['at both ends', '0x0 0xfff reserved\n0xf000 0xffff reserved', [{ start: 0x1000n, end: 0xefffn }]],
    ['all of it', '0x0 0xffffffffffffffff reserved', []],
    ['none', '', [{ start: 0n, end: 0xffffn }]],
  ])('%s', (_name, text, ranges) => {
    expect(allowed([widthRange(16)], parseReservedRegions(text))).toEqual(ranges);
  });

  test.each(['0x1000 0xfff msi', '1000 2000 msi', '0x1000 0x2000', 'garbage', '0x11112222333344445 0x2 msi'])(
    'damaged line: %s',
    (line) => {
      expect(() => parseReservedRegions(`${MSI}${line}`)).toThrow(
        expect.objectContaining({ exit: 5, message: expect.stringContaining('line 2') }),
      );
    },
  );

  test('--avoid', () => {
    expect(parseAvoid('0x1000-0x1fff')).toEqual({ start: 0x1000n, end: 0x1fffn, type: 'avoid' });
    for (const text of ['0x2000-0x1000', '4096-8191', '0x1000'])
      expect(() => parseAvoid(text)).toThrow(expect.objectContaining({ exit: 2 }));
  });
});

describe('page sizes', () => {
  test('of a list', () => {
    expect(parsePages('1G,4K,2M')).toEqual(pages);
    for (const text of ['3K', '0', '2K', '4K,8K,16K,32K,64K', 'x'])
      expect(() => parsePages(text)).toThrow(expect.objectContaining({ exit: 2 }));
  });
  test.each([
    [0x40201000n, pages],
    [0xffff_ffff_ffff_f000n, [4n * K, 2n * M, 512n * M, G]],
    [0x20010000n, [64n * K, 512n * M]],
    [0x1000n, [4n * K]],
  ])('of the bitmap 0x%x', (bitmap, sizes) => {
    expect(pagesOf(bitmap)).toEqual(sizes);
  });
});

describe('plan', () => {
  test('each mapping goes to the lowest place that is aligned to its largest page', () => {
    expect(layout(48, 'small=4K', 'big=64M', 'huge=3G', 'more=8K')).toEqual({
      ranges: [
        { start: 0n, end: 0xfedfffffn },
        { start: 0xfef00000n, end: 0xffffffffffffn },
      ],
      maps: [
        { name: 'small', iova: 0x12000n, size: 4096n, pageSize: 4096 },
        { name: 'big', iova: 0x200000n, size: 67108864n, pageSize: 2097152 },
        { name: 'huge', iova: 0x100000000n, size: 3221225472n, pageSize: 1073741824 },
        { name: 'more', iova: 0x10000n, size: 8192n, pageSize: 4096 },
      ],
      entries: 4,
      memlock: 3221225472 + 67108864 + 12288,
    });
  });

  test('what does not fit at a large page goes by smaller ones', () => {
    // Above the window lie 508 GiB from 4 GiB on, and 17 MiB before them.
    expect(layout(39, 'guest=508G').maps).toEqual([{ name: 'guest', iova: 0x100000000n, size: 508n * G, pageSize: 2 ** 30 }]);
    expect(layout(39, `guest=${508n * G + 2n * M}`, 'x=4K').maps[0]).toMatchObject({
      pageSize: 2097152,
      iova: 0xff000000n,
    });
  });

  test('4 GiB lie across the MSI window in pieces, each whole', () => {
    const { maps } = layout(48, ...Array.from({ length: 64 }, (_, i) => `part${i}=64M`));
    for (const { iova, size } of maps) expect(iova + BigInt(size) <= 0xfee00000n || iova >= 0xfef00000n).toBe(true);
    expect(maps.some((m) => m.iova < 0xfee00000n) && maps.some((m) => m.iova >= 0xfef00000n)).toBe(true);
  });

  test('fixed addresses are taken first, temporary ones come from the top, below4g stays below', () => {
    const { maps } = layout(48, 'auto=64K', 'fixed=64K,iova=0x10000', 'tmp=64K,temp', 'low=512M,below4g,align=1G', 'wide=4K,align=2M');
    expect(Object.fromEntries(maps.map((m) => [m.name, m.iova]))).toEqual({
      auto: 0x20000n,
      fixed: 0x10000n,
      tmp: 0xffffffff0000n,
      low: 0x40000000n,
      wide: 0x200000n,
    });
  });

  test.each([
    ['too large', 39, ['guest=1536G'], { exit: 3, code: 'ENOSPC' }, /guest: 1\.5T do not fit/],
    ['below 4 GiB', 48, ['a=2G,below4g', 'b=2G,below4g'], { exit: 3, code: 'ENOSPC' }, /b: 2G do not fit below 4 GiB/],
    ['overlap', 48, ['a=64K,iova=0x20000', 'b=64K,iova=0x2f000'], { exit: 3, code: 'EEXIST' }, /b: 0x2f000-0x3efff overlaps mapping a/],
    ['reserved', 48, ['a=2M,iova=0xfed00000'], { exit: 3, code: 'EADDRNOTAVAIL' }, /reserved region \(msi\) 0xfee00000-0xfeefffff/],
    ['aperture', 39, ['a=4K,iova=0x8000000000'], { exit: 3, code: 'EADDRNOTAVAIL' }, /last address 0x7fffffffff/],
    ['4 GiB limit', 48, ['a=8K,iova=0xfffff000,below4g'], { exit: 3 }, /the 4 GiB limit/],
    ['wrap', 48, ['a=8K,iova=0xfffffffffffff000'], { exit: 3, code: 'EOVERFLOW' }, /wrap/],
    ['unaligned address', 48, ['a=4K,iova=0x1800'], { exit: 2 }, /not aligned/],
    ['odd size', 48, ['a=5000'], { exit: 2 }, /not a multiple of 4K/],
  ])('refuses: %s', (_name, bits, specs, error, message) => {
    const run = () => layout(bits as number, ...(specs as string[]));
    expect(run).toThrow(expect.objectContaining(error));
    expect(run).toThrow(message);
  });

  test('65,535 entries are the limit', () => {
    const specs = (count: number) => parseSpecs(Array.from({ length: count }, (_, i) => `m${i}=4K`));
    expect(plan(aperture(48), specs(65_535)).entries).toBe(65_535);
    expect(() => plan(aperture(48), specs(65_536))).toThrow(expect.objectContaining({ exit: 3, code: 'ENOSPC' }));
  });

  test('files count with whole pages', () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-plan-'));
    fs.writeFileSync(path.join(dir, 'fw.bin'), Buffer.alloc(5000));
    fs.writeFileSync(path.join(dir, 'empty'), '');
    expect(layout(48, `fw=${dir}/fw.bin,ro`).maps[0]).toMatchObject({ size: 8192n });
    expect(() => layout(48, `fw=${dir}/empty`)).toThrow('empty');
    expect(() => layout(48, `fw=${dir}`)).toThrow('no regular file');
    expect(() => layout(48, `fw=${dir}/none`)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    fs.rmSync(dir, { recursive: true });
  });
});

test.each([
  ['buf', /not a mapping/],
  ['=4K', /not a mapping/],
  ['a b=4K', /not a mapping/],
  ['device=4K', /cannot name a mapping/],
  ['a=', /no size/],
  ['a=0', /size is 0/],
  ['a=4K,rw', /unknown option/],
  ['a=4K,align=3K', /power of two/],
  ['a=4K,align', /needs a size/],
  ['a=4K,ro=1', /takes no value/],
  ['a=4K,iova=zz', /not a number/],
  ['a=4K,iova=0x1000,temp', /exclude each other/],
  ['a=./file,huge=2M', /huge= is for new memory/],
])('mapping %s is wrong usage', (text, message) => {
  expect(() => parseSpecs([text])).toThrow(expect.objectContaining({ exit: 2 }));
  expect(() => parseSpecs([text])).toThrow(message);
});

test('a name comes once', () => {
  expect(() => parseSpecs(['a=4K', 'a=8K'])).toThrow('given twice');
});

describe('a device of this host', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-aperture-'));
  const root = new Sysroot(dir);
  const put = (file: string, text: string) => {
    fs.mkdirSync(path.dirname(path.join(dir, file)), { recursive: true });
    fs.writeFileSync(path.join(dir, file), text);
  };
  const device = '/sys/bus/pci/devices/0000:01:00.0';
  put(`${device}/iommu_group/reserved_regions`, MSI);
  put('/sys/bus/pci/devices/0000:02:00.0/vendor', '0x1234\n');
  afterAll(() => fs.rmSync(dir, { recursive: true }));

  test('without a width in sysfs it must be given', () => {
    expect(() => readAperture(root, '0000:01:00.0', pages)).toThrow(expect.objectContaining({ exit: 7, code: 'NO_WIDTH' }));
    expect(readAperture(root, '0000:01:00.0', pages, 39)).toEqual(aperture(39));
  });

  // Values of VT-d units: QEMU with aw-bits=48 and 39 (MGAW 48 and 39, SAGAW 4-level and 3-level), and a 5-level one.
  test.each([
    ['d2008c222f0606', 48],
    ['d2008c22260206', 39],
    ['d2008c22380e06', 57],
  ])('VT-d capability %s: %d bits', (cap, bits) => {
    put(`${device}/iommu/intel-iommu/cap`, `${cap}\n`);
    expect(addressWidth(root, '0000:01:00.0')).toBe(bits);
    expect(readAperture(root, '0000:01:00.0', pages).ranges.at(-1)!.end).toBe((1n << BigInt(bits)) - 1n);
  });

  test('an administrator’s entry limit is kept', () => {
    put('/sys/module/vfio_iommu_type1/parameters/dma_entry_limit', '128\n');
    expect(readAperture(root, '0000:01:00.0', pages, 48).limit).toBe(128);
  });

  test('no device, no IOMMU', () => {
    expect(() => readAperture(root, '0000:03:00.0', pages)).toThrow(expect.objectContaining({ code: 'ENODEV' }));
    expect(() => readAperture(root, '0000:02:00.0', pages)).toThrow(expect.objectContaining({ exit: 7, code: 'NO_IOMMU' }));
  });
});
