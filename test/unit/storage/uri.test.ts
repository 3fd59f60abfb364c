import { parseSourceText } from '../../../src/storage/source.js';
import { canonicalSource, isRemote, kindOf, parseNvme, parseRbd } from '../../../src/storage/uri.js';

test.each([
  ['disk.img', 'file'],
  ['./rbd:x', 'file'],
  ['/rbd:x', 'file'],
  ['./ram:x', 'file'],
  ['nbd', 'file'],
  ['nbd:x', 'file'],
  ['ram:1M', 'ram'],
  ['nbd://h', 'nbd'],
  ['nbds://h', 'nbd'],
  ['nbd+unix:///x?socket=/s', 'nbd'],
  ['nbds+unix:///x?socket=/s', 'nbd'],
  ['rbd:p/i', 'rbd'],
  ['nvme+tcp://h/nqn/1', 'nvme'],
  ['qcow2:f', 'qcow2'],
])('%s is of kind %s', (source, kind) => {
  expect(kindOf(source)).toBe(kind);
  expect(isRemote(source)).toBe(kind !== 'file' && kind !== 'ram');
});

test('names of images in Ceph', () => {
  expect(parseRbd('rbd:pool/image')).toEqual({ pool: 'pool', namespace: '', image: 'image', snapshot: undefined });
  expect(parseRbd('rbd:p/n/i@s')).toEqual({ pool: 'p', namespace: 'n', image: 'i', snapshot: 's' });
});

test('names of namespaces of NVMe/TCP', () => {
  expect(parseNvme('nvme+tcp://10.0.0.1/nqn.2014-08.org:x/7')).toEqual({ host: '10.0.0.1', port: 4420, nqn: 'nqn.2014-08.org:x', nsid: 7 });
  expect(parseNvme('nvme+tcp://[::1]:4421/nqn.2014-08.org:a/b/1')).toEqual({
    host: '::1',
    port: 4421,
    nqn: 'nqn.2014-08.org:a/b',
    nsid: 1,
  });
});

test.each([
  'rbd:',
  'rbd:pool',
  'rbd:pool/',
  'rbd:/image',
  'rbd:a/b/c/d',
  'rbd:p/i@',
  'rbd:p/i@a@b',
  'nvme+tcp://',
  'nvme+tcp://h',
  'nvme+tcp://h/nqn',
  'nvme+tcp://h/nqn/0',
  'nvme+tcp://h/nqn/4294967295',
  'nvme+tcp://h:0/nqn/1',
  'nvme+tcp://h:65536/nqn/1',
  'nbd+unix:///x',
  'nbd://h/x?socket=/s',
  'nbd://user:secret@h/x',
  'nbds+unix://user:secret@/x?socket=/s',
  'nbd://h/x?tls-psk-file=/k',
  'nbds://h/x?what=1',
  'nbd://[::1',
  'qcow2:',
  'ram:x',
])('%s is refused', (source) => {
  expect(() => canonicalSource(source)).toThrow(expect.objectContaining({ exit: 2 }));
});

test('paths of sources are made whole, URIs stay as they are', () => {
  expect(canonicalSource('a', '/srv')).toBe('/srv/a');
  expect(canonicalSource('qcow2:a', '/srv')).toBe('qcow2:/srv/a');
  expect(canonicalSource('./rbd:x', '/srv')).toBe('/srv/rbd:x');
  expect(canonicalSource('nbd://h/a', '/srv')).toBe('nbd://h/a');
  const secure = 'nbds+unix://user@/a?socket=/s&tls-psk-file=/k';
  expect(canonicalSource(secure, '/srv')).toBe(secure);
});

test('options behind a URI: of its own kind, and those of every source', () => {
  expect(parseSourceText('rbd:p/i,ro,id=me,conf=/c,keyring=/k,timeout=5s')).toEqual({
    source: 'rbd:p/i',
    readonly: true,
    remote: { id: 'me', conf: '/c', keyring: '/k', timeout: 5000 },
  });
  expect(parseSourceText('nbd://h/a,,b,bs=4096')).toEqual({ source: 'nbd://h/a,b', blockSize: 4096 });
  expect(parseSourceText('qcow2:/a,b,backing=/srv')).toEqual({ source: 'qcow2:/a,b', remote: { backing: '/srv' } });
  expect(parseSourceText('/a,id=me').source).toBe('/a,id=me'); // a file has no such option
});

test.each([
  'rbd:p/i,backing=/x',
  'rbd:p/i,what',
  'rbd:p/i,ro,what=1',
  'rbd:p/i,direct=on',
  'nbd://h/x,id=me',
  'nbd://h/x,timeout=1ms',
  'nbd://h/x,timeout=',
  'nvme+tcp://h/n/1,queues=0',
  'nvme+tcp://h/n/1,hdgst=maybe',
  'rbd:p/i,id=',
])('%s is wrong usage', (text) => {
  expect(() => parseSourceText(text)).toThrow(expect.objectContaining({ exit: 2 }));
});
