// The options of remote sources in configuration files: what a command line says, a file can say, and a saved file says again.
import { sourceChecks, sourceEntry, sourceOf } from '../../../../src/storage/config/checks.js';
import type { SourceEntry } from '../../../../src/storage/config/entry.js';
import { parseSourceText } from '../../../../src/storage/source.js';

const checkedEntry = (entry: SourceEntry): SourceEntry =>
  Object.fromEntries(
    Object.entries(entry).map(([key, value]) => [
      key,
      sourceChecks[key as keyof SourceEntry](value, { at: `file.namespaces[0].${key}`, texts: false }),
    ]),
  ) as unknown as SourceEntry;
const read = (entry: SourceEntry, folder = '/srv') => sourceOf(checkedEntry(entry), folder, 'file.namespaces[0]');

test.each([
  'nbd://127.0.0.1/disk,timeout=30s',
  'nbd+unix:///disk?socket=/run/nbd.sock,ro',
  'rbd:pool/image@snap,conf=/etc/ceph/other.conf,id=vm,keyring=/etc/ceph/vm.keyring,timeout=90s',
  'nvme+tcp://10.0.0.1:4421/nqn.2014-08.org.example:disk/1,hostnqn=nqn.2014-08.org.example:gw,hdgst,ddgst=off,queues=4,dhchap-file=/etc/vioctl/key,path=10.0.0.2,path=[fd00::1]:4500',
  'nvme+tcp://10.0.0.1/nqn.2014-08.org.example:disk/1,dhchap-secret-file=/etc/a,dhchap-ctrl-secret-file=/etc/b,tls,tls-key-file=/etc/c,discovery=d.example,discovery=[fd00::1]:4420',
  'qcow2:/srv/images/a.qcow2,backing=/srv/images',
])('%s is the same from a saved file', (text) => {
  const options = parseSourceText(text);
  expect(read(sourceEntry(options))).toEqual(options);
  expect(sourceEntry(read(sourceEntry(options)))).toEqual(sourceEntry(options));
});

test('names of files start in the folder of the file', () => {
  expect(read({ source: 'qcow2:a.qcow2', remote: { backing: '.' } })).toEqual({
    source: 'qcow2:/srv/a.qcow2',
    remote: { backing: '/srv' },
  });
});

test('dhchapFile is another name of dhchapSecretFile, and its file is found from the folder too', () => {
  const source = 'nvme+tcp://10.0.0.1/nqn.2014-08.org.example:disk/1';
  expect(read({ source, remote: { dhchapFile: 'key' } })).toEqual({ source, remote: { dhchapSecretFile: '/srv/key' } });
  expect(parseSourceText(`${source},dhchap-file=/srv/key`)).toEqual({ source, remote: { dhchapSecretFile: '/srv/key' } });
});

const far = 'nvme+tcp://h/nqn.2014-08.org.example:d/1';
test.each<[SourceEntry, RegExp]>([
  [{ source: far, remote: { discovery: ['a:b:c'] } }, /remote\.discovery: .*HOST\[:PORT\]/],
  [{ source: far, remote: { tls: true } }, /remote: tls needs tls-key-file/],
  [{ source: far, remote: { tls: false, tlsKeyFile: 'k' } }, /remote: tls-key-file= .*tls=off/],
  [{ source: far, remote: { dhchapCtrlSecretFile: 'k' } }, /remote: dhchap-ctrl-secret-file= needs/],
  [{ source: 'nbd://h/x', remote: { conf: 'a' } }, /namespaces\[0\]\.remote\.conf: is no option of this source; it has timeout/],
  [{ source: 'disk.img', remote: { timeout: '1s' } }, /remote\.timeout: is no option of this source; it has none/],
  [{ source: 'nbd://h/x', remote: { timeout: '1 s' } }, /remote\.timeout: /],
  [{ source: 'nbd://h/x', remote: { timeout: '20m' } }, /remote\.timeout: .*100ms to 10m/],
  [{ source: 'nvme+tcp://h/nqn.2014-08.org.example:d/1', remote: { paths: ['a b:c'] } }, /remote\.paths: .*HOST\[:PORT\]/],
  [{ source: 'nbd://h/x', remote: { tiemout: '1s' } as never }, /tiemout: is not known/],
])('%j is refused', (entry, message) => {
  expect(() => read(entry)).toThrow(message);
});
