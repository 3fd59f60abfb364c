/** `sources:` of a configuration: everything that a source opens must match it. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { checkAllowed } from '../../../../src/storage/config/sources.js';
import type { SourceOptions } from '../../../../src/storage/source.js';

let dir: string;
beforeAll(() => {
  dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-sources-')));
  for (const folder of ['in', 'out']) fs.mkdirSync(path.join(dir, folder));
  for (const file of ['in/disk', 'out/disk']) fs.writeFileSync(path.join(dir, file), '');
  fs.symlinkSync(path.join(dir, 'out/disk'), path.join(dir, 'in/link'));
  fs.symlinkSync(path.join(dir, 'out'), path.join(dir, 'in/folder'));
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

const nqn = 'nqn.2014-08.org.example:x';
const patterns = () => [`${dir}/in/*`, `${dir}/in`, `qcow2:${dir}/in/*`, `nvme+tcp://192.0.2.*:4420/${nqn}/1`, 'rbd:pool/*', 'ram:*'];
/** The options, with `@` for the folder. */
const allow = (options: object) =>
  checkAllowed(patterns(), JSON.parse(JSON.stringify(options).replaceAll('@', dir)) as SourceOptions).source.replaceAll(dir, '@');

describe('what the control socket may open', () => {
  test.each<[string, object, string]>([
    ['a file', { source: '@/in/disk' }, '@/in/disk'],
    ['a file that is to come', { source: '@/in/new' }, '@/in/new'],
    ['a detour', { source: '@/out/../in/disk' }, '@/in/disk'],
    ['an image', { source: 'qcow2:@/in/disk', remote: { backing: '@/in' } }, 'qcow2:@/in/disk'],
    ['memory', { source: 'ram:1M' }, 'ram:1048576'],
    [
      'two addresses',
      { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { paths: [{ host: '192.0.2.2', port: 4420 }], queues: 2 } },
      `nvme+tcp://192.0.2.1:4420/${nqn}/1`,
    ],
    ['an image of Ceph', { source: 'rbd:pool/image', remote: { conf: '@/in/disk', id: 'x' } }, 'rbd:pool/image'],
  ])('%s: and it is named as it is opened', (_what, options, name) => expect(allow(options)).toBe(name));

  test.each<[string, object]>([
    ['another folder', { source: '@/out/disk' }],
    ['dots', { source: '@/in/../out/disk' }],
    ['a link', { source: '@/in/link' }],
    ['a linked folder', { source: '@/in/folder/x' }],
    ['an image behind dots', { source: 'qcow2:@/in/../out/disk' }],
    ['an image behind a link', { source: 'qcow2:@/in/link' }],
    ['an image as it is no file', { source: 'qcow2:@/out/disk' }],
    ['backing files anywhere', { source: 'qcow2:@/in/disk', remote: { backing: '/' } }],
    ['backing files behind a link', { source: 'qcow2:@/in/disk', remote: { backing: '@/in/folder' } }],
    ['backing files behind dots', { source: 'qcow2:@/in/disk', remote: { backing: '@/in/../out' } }],
    ['a second address', { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { paths: [{ host: '198.51.100.1', port: 4420 }] } }],
    ['a second port', { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { paths: [{ host: '192.0.2.1', port: 22 }] } }],
    ['a discovery service', { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { discovery: [{ host: '192.0.2.1', port: 8009 }] } }],
    ['a secret', { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { dhchapSecretFile: '/etc/shadow' } }],
    ['a secret of the controller', { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { dhchapCtrlSecretFile: '/etc/shadow' } }],
    ['a key of TLS', { source: `nvme+tcp://192.0.2.1:4420/${nqn}/1`, remote: { tlsKeyFile: '/etc/shadow' } }],
    ['a configuration of Ceph', { source: 'rbd:pool/image', remote: { conf: '@/out/disk' } }],
    ['a keyring of Ceph', { source: 'rbd:pool/image', remote: { keyring: '@/in/link' } }],
  ])('not %s', (_what, options) => expect(() => allow(options)).toThrow(expect.objectContaining({ code: 'NOT_ALLOWED', exit: 3 })));

  test('no pattern allows nothing, no list everything', () => {
    expect(() => checkAllowed([], { source: 'ram:1M' })).toThrow(expect.objectContaining({ code: 'NOT_ALLOWED' }));
    expect(checkAllowed(undefined, { source: 'qcow2:/x', remote: { backing: '/' } }).source).toBe('qcow2:/x');
  });
});
