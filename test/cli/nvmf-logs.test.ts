/** `nvmf logs`: every log of our target, in the keys of nvme-cli, as text and as bytes. */
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

let target: ServedTarget;
beforeAll(async () => {
  target = await serveTarget(['ram:4M', 'ram:1M,bs=4096,group=2']);
});
afterAll(() => target?.stop());

const at = () => ['-s', String(target.port), '-n', target.nqn];
const logs = (...args: string[]) => nvmf(['logs', ...args, ...at()]);
const json = async (...args: string[]) => {
  const { status, stdout, stderr } = await logs(...args, '--json');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout.toString());
};

test('smart counts what was moved, beyond the association that moved it', async () => {
  expect(await nvmf(['write', ...at(), '--namespace-id', '1'], { input: Buffer.alloc(600_000, 1) })).toMatchObject({ status: 0 });
  expect((await nvmf(['read', ...at(), '--namespace-id', '1', '--count', '1M'])).stdout.length).toBe(1 << 20);
  const smart = await json('smart');
  expect(smart).toMatchObject({
    critical_warning: 0,
    temperature: 298,
    avail_spare: 100,
    data_units_read: 3, // 1 MiB and the block that was completed, in thousands of 512 bytes, rounded up
    data_units_written: 2,
    power_on_hours: 0,
    media_errors: 0,
  });
  // of at most 1 MiB each, and the block that was completed
  expect(smart.host_read_commands).toBeGreaterThanOrEqual(2);
  expect(smart.host_write_commands).toBeGreaterThanOrEqual(1);
  const { stdout } = await logs('smart');
  expect(stdout.toString()).toMatch(/^temperature +: 298 K \(25 °C\)$/m);
  const raw = (await logs('smart', '--raw')).stdout;
  expect(raw.length).toBe(512);
  expect(raw.readUInt16LE(1)).toBe(298);
  // per controller only
  expect(await logs('smart', '--namespace-id', '1')).toMatchObject({ status: 1, stderr: expect.stringContaining('Invalid Field') });
});

test.each([
  ['fw', { 'Active Firmware Slot (afi)': 1, 'Firmware Rev Slot 1': '1.0' }],
  ['error', { errors: [] }],
  ['changed-ns', { changed: [] }],
  [
    'ana',
    {
      ngrps: 2,
      'ANA DESC LIST': [
        expect.objectContaining({ grpid: 1, state: 'optimized', nsids: [1] }),
        expect.objectContaining({ grpid: 2, nsids: [2] }),
      ],
    },
  ],
  ['effects', { io_cmd_support: expect.objectContaining({ 'IOCS_1 (write)': 3, 'IOCS_2 (read)': 1 }) }],
])('%s', async (name, expected) => {
  expect(await json(name)).toMatchObject(expected);
  const { stdout, status } = await logs(name);
  expect(status).toBe(0);
  if (name !== 'error') expect(stdout.toString()).toMatch(/ : /);
  expect((await logs(name, '--raw')).stdout.length % 4).toBe(0);
});

test('the discovery log, of the discovery service', async () => {
  const { status, stdout } = await nvmf([
    'logs',
    'discovery',
    '-s',
    String(target.port),
    '-n',
    'nqn.2014-08.org.nvmexpress.discovery',
    '--json',
  ]);
  expect(status).toBe(0);
  expect(JSON.parse(stdout.toString()).records.map((r: { subnqn: string }) => r.subnqn)).toContain(target.nqn);
});

test('wrong usage, a log that is not there, nobody who listens', async () => {
  expect(await logs('nothing')).toMatchObject({ status: 2 });
  expect(await nvmf(['logs', ...at()])).toMatchObject({ status: 2 });
  expect(await logs('error', '--namespace-id', '1')).toMatchObject({ status: 2 });
  expect(await logs('smart', '--raw', '--json')).toMatchObject({ status: 2 });
  const missing = await logs('discovery', '--json');
  expect({ status: missing.status, out: missing.stdout.length }).toEqual({ status: 1, out: 0 });
  expect(JSON.parse(missing.stderr).error.message).toContain('Invalid Log Page');
  const nobody = await nvmf(['logs', 'smart', '-s', '1', '-n', target.nqn, '--json']);
  expect(nobody.status).toBe(1);
  expect(JSON.parse(nobody.stderr)).toMatchObject({ error: { code: 'ECONNREFUSED' } });
});
