/** What `check` makes of the ways to refuse a message: a fake back-end, since no real one has all of them. */
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { type CheckResult, runChecks } from '../../../../src/vhost-user/check/run.js';

const [GET_FEATURES, GET_PROTOCOL_FEATURES, SET_VRING_NUM] = [1, 15, 8];
const [REPLY, NEED_REPLY] = [4, 8];
type Way = 'goes on' | 'closes' | 'hangs';

/** Answers feature words; other messages with 0, but for SET_VRING_NUM of ring 200: `status`, and then its way. */
function backEnd(client: net.Socket, status: bigint | undefined, way: Way, ack: boolean): void {
  let bytes = Buffer.alloc(0);
  let hung = false;
  const answer = (id: number, value: bigint): void => {
    const reply = Buffer.alloc(20);
    reply.writeUInt32LE(id, 0);
    reply.writeUInt32LE(1 | REPLY, 4);
    reply.writeUInt32LE(8, 8);
    reply.writeBigUInt64LE(value, 12);
    if (!hung) client.write(reply);
  };
  client.on('error', () => {});
  client.on('data', (more) => {
    bytes = Buffer.concat([bytes, more]);
    while (bytes.length >= 12 && bytes.length >= 12 + bytes.readUInt32LE(8)) {
      const [id, flags, size] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4), bytes.readUInt32LE(8)];
      const ring = size >= 4 ? bytes.readUInt32LE(12) : 0;
      bytes = bytes.subarray(12 + size);
      const bad = id === SET_VRING_NUM && ring === 200;
      if (id === GET_FEATURES) answer(id, (1n << 30n) | (1n << 32n));
      else if (id === GET_PROTOCOL_FEATURES) answer(id, ack ? 1n << 3n : 0n);
      else if ((flags & NEED_REPLY) !== 0 && (!bad || status !== undefined)) answer(id, bad ? status! : 0n);
      if (bad && way === 'closes') client.end();
      if (bad && way === 'hangs') hung = true;
    }
  });
}

test.each<[what: string, status: bigint | undefined, way: Way, ack: boolean, result: CheckResult['result'], got: RegExp]>([
  ['an error', 1n, 'goes on', true, 'ok', /^refused \(error 1\)$/],
  ['an error, then the end', 1n, 'closes', true, 'ok', /^refused \(error 1\), then the connection closed$/],
  ['the end', undefined, 'closes', true, 'ok', /^connection closed$/],
  ['an error, then nothing any more', 1n, 'hangs', true, 'not ok', /^refused \(error 1\), then no answer any more$/],
  ['nothing', undefined, 'hangs', true, 'not ok', /^no answer$/],
  ['success', 0n, 'goes on', true, 'not ok', /^accepted/],
  ['the end, without acknowledgements', undefined, 'closes', false, 'ok', /^connection closed$/],
  ['nothing any more, without acknowledgements', undefined, 'hangs', false, 'not ok', /^no answer any more$/],
  ['what cannot be seen', undefined, 'goes on', false, 'skipped', /REPLY_ACK/],
])('%s', async (_what, status, way, ack, result, got) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-verdict-'));
  const socket = path.join(dir, 's');
  const clients: net.Socket[] = [];
  const server = net.createServer((client) => {
    clients.push(client);
    backEnd(client, status, way, ack);
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  try {
    const found: CheckResult[] = [];
    for await (const one of runChecks({ socket, timeout: 500, only: 'SET_VRING_NUM for ring 200' })) found.push(one);
    expect(found).toEqual([expect.objectContaining({ result, got: expect.stringMatching(got) })]);
  } finally {
    for (const client of clients) client.destroy();
    server.close();
    fs.rmSync(dir, { recursive: true });
  }
});
