// Tables on real terminals of several widths, in the order and with the columns that the user asks for.
import stringWidth from 'string-width';
import { vioctl } from '../support/cli.js';
import { PciTree } from '../support/pci-tree.js';
import { onTerminal } from '../support/terminal.js';

let tree: PciTree;
beforeAll(() => {
  tree = new PciTree();
  ['nvme_of_a_vendor_with_a_very_long_name', 'ixgbe', undefined].forEach((driver, i) => {
    tree.device(`0000:0${i + 1}:00.0`, { ...(driver && { driver }), group: 12 - i, override: 'another-driver-with-a-long-name' });
  });
});
afterAll(() => tree.remove());
const env = () => ({ VIOCTL_SYSROOT: tree.dir });

test.each([40, 60, 80, 120, 400])('a terminal of %d columns holds the whole table', (columns) => {
  const lines = onTerminal(['vfio', 'list'], columns, env());
  expect(lines.some((line) => line.includes('0000:01:00.0'))).toBe(true);
  for (const line of lines) expect(stringWidth(line)).toBeLessThanOrEqual(columns);
  expect(lines.at(-1)!.startsWith('└') || lines.join(' ').includes('No room for')).toBe(true);
  if (columns === 400) expect(lines.join('\n')).toContain('nvme_of_a_vendor_with_a_very_long_name');
});

test('--no-truncate prints all columns whole', () => {
  const lines = onTerminal(['vfio', 'list', '--no-truncate'], 40, env());
  expect(lines.join('\n')).toContain('nvme_of_a_vendor_with_a_very_long_name');
  expect(lines.join('\n')).not.toContain('No room for');
});

test('a locale without UTF-8 gets an ASCII frame', () => {
  const text = onTerminal(['vfio', 'list'], 80, { ...env(), LC_ALL: 'C' }).join('\n');
  expect(text).toMatch(/^\+-+\+/);
  expect(text).toMatch(/^[\n\x20-\x7e]*$/);
});

test('a pipe gets every column whole, without a frame', () => {
  const { stdout } = vioctl(['vfio', 'list'], { env: { ...env(), COLUMNS: '40' } });
  expect(stdout).toContain('nvme_of_a_vendor_with_a_very_long_name');
  expect(stdout).not.toMatch(/[│|]/);
});

test('--columns selects and orders, --sort sorts by value in both directions', () => {
  const column = (...args: string[]) => {
    const { stdout } = vioctl(['vfio', 'list', '--no-headings', ...args], { env: env() });
    return stdout
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/));
  };
  expect(column('--columns', 'group,address', '--sort', 'group')).toEqual([
    ['10', '0000:03:00.0'],
    ['11', '0000:02:00.0'],
    ['12', '0000:01:00.0'],
  ]);
  // the device without a driver comes last both ways
  expect(column('--columns', 'driver', '--sort', 'driver')).toEqual([['ixgbe'], ['nvme_of_a_vendor_with_a_very_long_name'], ['-']]);
  expect(column('--columns', 'driver', '--sort', '-driver')).toEqual([['nvme_of_a_vendor_with_a_very_long_name'], ['ixgbe'], ['-']]);
  const sorted = JSON.parse(vioctl(['vfio', 'list', '--json', '--sort', 'group'], { env: env() }).stdout);
  expect(sorted.devices.map((d: { bdf: string }) => d.bdf)).toEqual(['0000:03:00.0', '0000:02:00.0', '0000:01:00.0']);
});

test.each([
  ['--columns', 'adress'],
  ['--sort', 'nosuch'],
  ['--sort', '-'],
  ['--columns', ''],
])('%s %j is wrong usage', (...words) => {
  const { status, stdout, stderr } = vioctl(['vfio', 'list', ...words], { env: env() });
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/no such column: .*\nhint: columns: address, class/);
});
