/** The configuration space of a disk: GET_CONFIG of any size, anywhere. */
import { native } from '../../../../src/native/index.js';
import { openSource } from '../../../../src/storage/open.js';
import { blkDevice, noStats } from '../../../../src/vhost-user/blk/device.js';
import { deviceByName } from '../../../../src/vhost-user/wire/devices.js';
import { config as message } from '../../../../src/vhost-user/wire/messages.js';
import { backEnd } from '../../../support/vhost-user-pair.js';

const fields = deviceByName('blk')!.config!;
/** Of the protocol; of the fields of a disk; of the message before its bytes. */
const [LARGEST, FIELDS, HEAD] = [256, fields.size, 12];
const source = openSource({ source: `ram:${3 << 20}` });
afterAll(() => native().storage.close(source.store));

let close: () => Promise<void>;
afterEach(() => close());

function connected() {
  const { raw, ...end } = backEnd(blkDevice({ ...source, queues: 3, serial: 'S', ioUring: false, spinMicroseconds: 0 }, noStats()));
  close = end.close;
  const read = async (offset: number, size: number): Promise<Buffer> => {
    raw.send(24, 1, message.encode({ offset, size, flags: 0, data: new Uint8Array(size) }));
    const answer = await raw.exchange.next(5000);
    if (answer.kind !== 'message') throw new Error(`GET_CONFIG at ${offset} of ${size} bytes: ${answer.kind}`);
    return answer.message.payload;
  };
  return read;
}

test('every size up to 256, at every kind of offset: the fields, then zeroes', async () => {
  const read = connected();
  const whole = await read(0, LARGEST);
  expect(whole.length).toBe(HEAD + LARGEST);
  const space = whole.subarray(HEAD);
  const { capacity, blk_size, num_queues } = fields.decode(space.subarray(0, FIELDS)) as Record<string, unknown>;
  expect({ capacity, blk_size, num_queues }).toEqual({ capacity: BigInt((3 << 20) / 512), blk_size: 512, num_queues: 3 });
  expect(space.subarray(FIELDS).equals(Buffer.alloc(LARGEST - FIELDS))).toBe(true);
  for (const offset of [0, 1, 8, 20, FIELDS - 1, FIELDS, FIELDS + 1, 100, LARGEST - 1])
    for (let size = 1; offset + size <= LARGEST; size++) {
      const payload = await read(offset, size);
      expect([payload.readUInt32LE(0), payload.readUInt32LE(4)]).toEqual([offset, size]);
      expect(payload.subarray(HEAD).equals(space.subarray(offset, offset + size))).toBe(true);
    }
});

test.each([
  [0, 0],
  [1, LARGEST],
  [LARGEST - 1, 2],
  [LARGEST, 1],
  [0xffffffff, 1],
])('at %d, %d bytes are none that there are: an answer without payload, and the connection goes on', async (offset, size) => {
  const read = connected();
  expect((await read(offset, size)).length).toBe(0);
  expect((await read(0, 8)).length).toBe(HEAD + 8);
});
