import { vioctl } from '../support/cli.js';

const MSI = '0x00000000fee00000 0x00000000feefffff msi\n';

describe('dma plan', () => {
  test('reads reserved regions from stdin and prints one document', () => {
    const { status, stdout, stderr } = vioctl(['dma', 'plan', '--reserved', '-', '--aw', '39', '--json', 'a=64K', 'b=4G'], { input: MSI });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({
      ranges: [
        { start: '0x0', end: '0xfedfffff' },
        { start: '0xfef00000', end: '0x7fffffffff' },
      ],
      maps: [
        { name: 'a', iova: '0x10000', size: 65536, pageSize: 4096 },
        { name: 'b', iova: '0x100000000', size: 4294967296, pageSize: 1073741824 },
      ],
      entries: 2,
      memlock: 4295032832,
    });
  });

  test('what does not fit is status 3, with nothing on stdout', () => {
    const run = vioctl(['dma', 'plan', '--reserved', '-', '--aw', '39', '--json', 'guest=1536G'], { input: MSI });
    expect(run).toMatchObject({ status: 3, stdout: '' });
    expect(JSON.parse(run.stderr)).toMatchObject({ error: { code: 'ENOSPC', details: { name: 'guest' } } });
  });

  test.each([
    [['dma', 'plan', 'a=4K'], 2],
    [['dma', 'plan', '--reserved', '-'], 2],
    [['dma', 'plan', '0000:01:00.0', '--reserved', '-', 'a=4K'], 2],
    [['dma', 'plan', '--reserved', '-', '--aw', '99', 'a=4K'], 2],
    [['dma', 'plan', '--reserved', '/nonexistent', 'a=4K'], 1],
  ])('%j ends with status %i', (args, status) => {
    expect(vioctl(args, { input: MSI })).toMatchObject({ status, stdout: '' });
  });

  test('a damaged line is status 5', () => {
    expect(vioctl(['dma', 'plan', '--reserved', '-', 'a=4K'], { input: 'oops\n' })).toMatchObject({ status: 5, stdout: '' });
  });

  test('a hole of the user stays free', () => {
    const { stdout } = vioctl(['dma', 'plan', '--reserved', '-', '--avoid', '0x0-0xffffff', '--json', 'a=4K'], { input: MSI });
    expect(JSON.parse(stdout).maps).toEqual([{ name: 'a', iova: '0x1000000', size: 4096, pageSize: 4096 }]);
  });

  test('@FILE has one mapping in a line, - is stdin; words and files go together', () => {
    const lines = '# rings\n\na=64K \r\n  b=4G,below4g=no\n'.replace(',below4g=no', '');
    const args = ['dma', 'plan', '--reserved', '/dev/null', '--aw', '39', '--json'];
    const direct = vioctl([...args, 'a=64K', 'b=4G', 'c=4K']);
    const { status, stdout, stderr } = vioctl([...args, '@-', 'c=4K'], { input: lines });
    expect({ status, stdout, stderr }).toEqual({ status: direct.status, stdout: direct.stdout, stderr: direct.stderr });
    expect(vioctl([...args, '@/nonexistent'])).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
    expect(vioctl([...args, '@/dev/null'])).toMatchObject({ status: 2 });
  });

  test('people see a table', () => {
    const { stdout } = vioctl(['dma', 'plan', '--reserved', '-', 'buf=64M'], { input: MSI });
    expect(stdout).toContain('memlock  64M (67108864 bytes)');
    expect(stdout).toMatch(/^buf {3}0x200000 +64M {2}2M$/m);
  });

  test.each([
    ['C.UTF-8', '█', '░'],
    ['C', '#', ':'],
  ])('and a map of the addresses, whole and in order (%s)', (locale, mapped, reserved) => {
    const { stdout } = vioctl(['dma', 'plan', '--reserved', '-', 'buf=64M', 'low=4K,iova=0xfedff000', 'high=1T,iova=0x100000000'], {
      input: MSI,
      env: { LC_ALL: locale },
    });
    const rows = [...stdout.slice(stdout.indexOf('ADDRESSES')).matchAll(/^(0x\S+) +\S+ {2}(\S+) *(.*)$/gm)];
    const glyphs = rows.map(([, from, name, bar]) => [from, name, [...new Set(bar)].join('')]);
    expect(glyphs).toEqual([
      ['0x0', 'free', ''],
      ['0x200000', 'buf', mapped],
      ['0x4200000', 'free', ''],
      ['0xfedff000', 'low', mapped],
      ['0xfee00000', 'reserved', reserved],
      ['0xfef00000', 'free', ''],
      ['0x100000000', 'high', mapped],
      ['0x10100000000', 'free', ''],
    ]);
  });
});
