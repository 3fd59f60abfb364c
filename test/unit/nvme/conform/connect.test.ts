/** Connections of `nvmf conform`: nothing of one that was refused keeps the program from ending. */
import { Bytes } from '../../../../src/nvme/conform/bytes.js';
import { RawConnection } from '../../../../src/nvme/conform/raw.js';
import { bindSocket } from '../../../../src/nvme/target/sockets.js';

test.each([
  ['bytes', (port: number) => Bytes.open({ address: '127.0.0.1', port }, async () => {})],
  ['PDUs', (port: number) => RawConnection.open('127.0.0.1', port)],
])('%s: a refused connection leaves no timer', async (_what, open) => {
  const { fd, port } = bindSocket('127.0.0.1', 0);
  fd.close();
  const timers = () => process.getActiveResourcesInfo().filter((one) => one === 'Timeout').length;
  const before = timers();
  await expect(open(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  expect(timers()).toBeLessThanOrEqual(before);
});
