import fs from 'node:fs';
import path from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { readConfigText } from '../../../../src/common/text/document.js';
import { parseBlkConfig } from '../../../../src/vhost-user/blk/config/read.js';

const root = path.resolve(__dirname, '../../../..');
const samples = path.join(root, 'docs/samples/vhost-user');
const schema = JSON.parse(fs.readFileSync(path.join(root, 'schemas/vhost-user-config.json'), 'utf8'));
const page = fs.readFileSync(path.join(root, 'man/vioctl-vhost-user.5'), 'utf8');
const parse = (value: object) => parseBlkConfig({ text: JSON.stringify(value), name: 'c.json', folder: '/srv' });

test('the samples are read, fit the schema, and stand in the manual page', async () => {
  const validate = new Ajv2020({ strict: false }).compile(schema);
  for (const name of fs.readdirSync(samples)) {
    const text = readConfigText(path.join(samples, name));
    // the group of a sample need not be one of this host
    const { disks } = await parseBlkConfig({ ...text, text: text.text.replace('socketGroup: kvm', 'socketGroup: 0') });
    expect(disks.length).toBeGreaterThan(0);
    if (name.endsWith('.json')) expect(validate(JSON.parse(text.text))).toBe(true);
    expect(page).toContain(`${name.replaceAll('-', '\\-')}:`);
  }
  expect(validate({ disks: [], colour: 1 })).toBe(false);
  expect(validate({ disks: [{ socket: 's', source: 'x', socketMode: 'rw' }] })).toBe(false);
});

test('the keys that are read are those of the manual page and of the schema', async () => {
  const known = async (value: object) =>
    / is not known; known are (.*)$/
      .exec((await parse(value).catch((err: Error) => err)).toString())?.[1]
      ?.split(', ')
      .sort();
  const keysOf = (heading: string) => {
    const part = page.split('.SH ').find((one) => one.startsWith(heading));
    return [...(part ?? '').matchAll(/^\.TP\n\.B "(.*)"$/gm)].map((match) => match[1]).sort();
  };
  const file = await known({ disks: [], '?': 0 });
  expect([file, Object.keys(schema.$defs.BlkConfigFile?.properties ?? schema.properties).sort()]).toEqual([
    keysOf('KEYS OF THE FILE'),
    file,
  ]);
  const disk = await known({ disks: [{ socket: 's', source: 'x', '?': 0 }] });
  expect([disk, Object.keys(schema.$defs.DiskEntry.properties).sort()]).toEqual([keysOf('KEYS OF DISKS[]'), disk]);
});

test('what keys mean', async () => {
  const config = await parse({
    control: 'ctl',
    engine: 'sync',
    spinMicroseconds: 0,
    queues: 4,
    socketMode: '0660',
    disks: [
      { socket: 's1', source: 'disk', readOnly: true, iops: '5/10/2', bps: 'none', zero: 'unmap', socketOwner: '12', serial: 'X' },
      { socket: '/run/s2', source: 'ram:1M', queues: 1, socketMode: '600' },
    ],
  });
  expect(config).toEqual({
    control: '/srv/ctl',
    engine: 'sync',
    spinMicroseconds: 0,
    disks: [
      {
        socket: '/srv/s1',
        serial: 'X',
        queues: 4,
        mode: 0o660,
        uid: 12,
        source: { source: '/srv/disk', readonly: true, iops: { average: 5, burst: 10, seconds: 2 }, bps: null, zero: 'unmap' },
      },
      { socket: '/run/s2', queues: 1, mode: 0o600, source: { source: `ram:${1 << 20}` } },
    ],
  });
});
