import { VioError } from '../../../../src/common/errors.js';
import { explained, protocolOf } from '../../../../src/vhost-user/tools/identify.js';

test.each([
  ['{"QMP": {"ve', /QMP/],
  ['NBDMAGICIHAV', /NBD/],
  ['RFB 003.008\n', /VNC/],
  ['SSH-2.0-Open', /SSH/],
  ['HTTP/1.1 400', /HTTP/],
  ['{"jsonrpc":', /JSON/],
])('%j', (head, what) => {
  expect(protocolOf(Buffer.from(head))).toMatch(what);
});
test('bytes of a vhost-user header are nothing else', () => {
  expect(protocolOf(Buffer.from('010000000500000008000000', 'hex'))).toBeUndefined();
});

test('the error says what answers, and who serves it', () => {
  const broken = new VioError('announces too much', { code: 'EPROTO', exit: 5, details: { head: Buffer.from('NBDMAGICIHAV') } });
  expect(explained(broken, { exe: '/usr/bin/qemu-nbd', pid: 7 })).toMatchObject({
    message: 'this is an NBD server, no vhost-user back-end',
    exit: 5,
    hint: 'it is served by /usr/bin/qemu-nbd (pid 7)',
  });
  const silent = new VioError('no answer', { code: 'ETIMEDOUT', exit: 124, hint: 'wait' });
  expect(explained(silent, { exe: '/usr/bin/dockerd', pid: 9 })).toMatchObject({
    message: 'no answer',
    exit: 124,
    hint: 'wait; the socket is served by /usr/bin/dockerd (pid 9)',
  });
  expect(explained(silent, undefined)).toBe(silent);
  const other = new Error('x');
  expect(explained(other, undefined)).toBe(other);
});
