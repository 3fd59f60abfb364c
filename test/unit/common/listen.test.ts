import { listenError } from '../../../src/common/listen.js';

const error = (code: string, port = 4420) => listenError('192.0.2.1', port, Object.assign(new Error(code), { code, syscall: 'bind' }));

test('the hint of a failed listen follows from the errno', () => {
  expect(error('EADDRINUSE').hint).toBe("ss -ltnp 'sport = :4420' shows who has the port; port 0 takes a free one");
  expect(error('EADDRNOTAVAIL').hint).toMatch(/^ip -brief address/);
  expect(error('EACCES', 80)).toMatchObject({ exit: 6, hint: expect.stringContaining('CAP_NET_BIND_SERVICE') });
  expect(error('EACCES', 4420)).toMatchObject({ exit: 6, hint: undefined });
  expect(error('ENOBUFS').hint).toBeUndefined();
  expect(error('EADDRINUSE').message).toBe('listen on 192.0.2.1 port 4420: EADDRINUSE (Address already in use)');
});
