import { parseSourceText } from '../../../src/storage/source.js';

test.each([
  ['/a/b.img', { source: '/a/b.img' }],
  ['/a,,b', { source: '/a,b' }],
  ['/a,,ro', { source: '/a,ro' }],
  ['/a,,,ro', { source: '/a,', readonly: true }],
  ['/a,,,,ro', { source: '/a,,ro' }],
  ['/a,b', { source: '/a,b' }],
  ['/a,ro,b', { source: '/a,ro,b' }],
  ['/a,ro=off,format=raw', { source: '/a', readonly: false, format: 'raw' }],
  ['/a,shared=on,bs=4096', { source: '/a', shared: true, blockSize: 4096 }],
  ['/a,zero=unmap', { source: '/a', zero: 'unmap' }],
  ['/a,bs=512,bs=4096', { source: '/a', blockSize: 4096 }],
  ['/a\nb,ro', { source: '/a\nb', readonly: true }],
  [',ro', { source: expect.stringMatching(/\/,ro$/) }],
  ['./ram:1M', { source: expect.stringMatching(/\/ram:1M$/) }],
  ['ram:1M,ro', { source: 'ram:1048576', readonly: true }],
])('%j', (text, options) => {
  expect(parseSourceText(text)).toEqual(options);
});

test.each(['/a,bs=x', '/a,bs', '/a,format=qcow2', '/a,format', '/a,ro=maybe', '/a,shared=1', '/a,zero', '/a,zero=on', 'ram:x'])(
  '%s: wrong usage',
  (text) => {
    expect(() => parseSourceText(text)).toThrow(expect.objectContaining({ exit: 2 }));
  },
);

test('an option overrides the default of the command line, and only one that is known is an option', () => {
  expect(parseSourceText('/a,ro=off', { readonly: true, force: true })).toEqual({ source: '/a', readonly: false, force: true });
  const more = { nsid: (o: { source: string; nsid?: number }, value?: string) => (o.nsid = Number(value)) };
  expect(parseSourceText('/a,nsid=3', {}, more as never)).toEqual({ source: '/a', nsid: 3 });
  expect(parseSourceText('/a,nsid=3')).toEqual({ source: '/a,nsid=3' });
  expect(parseSourceText('/a,constructor')).toEqual({ source: '/a,constructor' });
});

test('engine=: threads, io_uring, or what the server uses', () => {
  expect(parseSourceText('/a,engine=sync')).toEqual({ source: '/a', engine: 'sync' });
  for (const name of ['uring', 'io_uring']) expect(parseSourceText(`/a,engine=${name}`)).toEqual({ source: '/a', engine: 'uring' });
  expect(parseSourceText('/a,engine=sync,engine=auto')).toEqual({ source: '/a' });
  for (const wrong of ['/a,engine', '/a,engine=', '/a,engine=threads']) expect(() => parseSourceText(wrong)).toThrow('engine=');
  expect(() => parseSourceText('nbd://192.0.2.1/x,engine=sync')).toThrow('engine: chooses who does the I/O of files');
});
