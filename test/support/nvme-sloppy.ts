/** Targets whose security is a pretence: `nvmf conform` must find each fault of theirs. */
import net, { type AddressInfo } from 'node:net';
import { type ChapKeys, ControllerExchange } from '../../src/nvme/auth/controller.js';
import { power } from '../../src/nvme/auth/dh.js';
import { AdminOpcode, AuthId, AuthReq, AuthType, chapSuccess1, connectData, Fctype, sqe } from '../../src/nvme/wire/index.js';
import { type FakeConnection, type FakeHooks, FakeTarget } from './nvme-fake.js';

export interface SloppyOptions {
  keys: ChapKeys;
  /** Ends connections that pause longer than this within an exchange, in milliseconds. */
  hurry?: number;
  /** Ends connections that authenticate again. */
  once?: boolean;
  /** Changes a message before it leaves, by its AUTH_ID; without one, the host waits for ever. */
  spoil?: (message: Buffer, id: number) => Buffer | undefined;
  /** AUTHREQ of Connect. */
  authreq?: number;
  /** Sends a message alone where the host has room for more, as SPDK does. */
  short?: boolean;
}

/** Success1 that proves nothing. */
const success = (): Buffer =>
  chapSuccess1.encode({ type: AuthType.dhchap, id: AuthId.success1, hl: 32 }, Buffer.alloc(chapSuccess1.size + 32));

/** A target that asks for authentication, lets right hosts in, and wrong ones, too: nothing waits for an exchange, and none fails. */
export function sloppyTarget({
  keys,
  hurry = Infinity,
  once = false,
  spoil,
  authreq = AuthReq.required,
  short,
}: SloppyOptions): FakeTarget {
  const exchanges = new WeakMap<FakeConnection, { exchange: ControllerExchange; heard: number; passed: boolean }>();
  const take: FakeHooks['data'] = (connection, cid, data) => {
    const sent = exchanges.get(connection)!.exchange.send(Buffer.from(data));
    void sent.then(() => connection.complete(cid));
  };
  const command: FakeHooks['command'] = (connection, bytes, data) => {
    const { opcode, fctype, cid, sglLength } = sqe.decode(bytes);
    const state = exchanges.get(connection);
    if (opcode !== AdminOpcode.fabrics) return false;
    if (fctype === Fctype.connect) {
      const { hostnqn, subnqn } = connectData.decode(data);
      const exchange = new ControllerExchange({
        hostnqn,
        subnqn,
        keys: () => keys,
        power,
        succeeded: () => {
          exchanges.get(connection)!.passed = true;
        },
        failed: () => {},
      });
      exchanges.set(connection, { exchange, heard: performance.now(), passed: false });
      connection.qid = bytes.readUInt16LE(42);
      connection.complete(cid, { dw0: 1 | (authreq << 16) });
      return true;
    }
    if (!state || (fctype !== Fctype.authSend && fctype !== Fctype.authReceive)) return false;
    const now = performance.now();
    if ((!state.passed && now - state.heard > hurry) || (once && state.passed)) connection.socket.destroy();
    state.heard = now;
    if (fctype === Fctype.authSend) {
      if (data.length === 0 && sglLength > 0 && sglLength <= 4096) connection.r2t(cid, { ttag: cid, r2to: 0, r2tl: sglLength });
      else take(connection, cid, data);
      return true;
    }
    const good = state.exchange.state === 'challenge' || state.exchange.state === 'success1';
    const right = good ? state.exchange.receive() : success();
    const message = spoil ? spoil(right, right[1]!) : right;
    const room = Math.min(sglLength, 4096);
    if (message) connection.answer(cid, short ? message.subarray(0, room) : Buffer.concat([message], room));
    return true;
  };
  return new FakeTarget({ command, data: take });
}

/** A ServerHello, as far as its first bytes tell. */
const serverHello = Buffer.concat([Buffer.from('160303004002', 'hex'), Buffer.alloc(63)]);

/**
 * A relay to a target with TLS. Hosts reach it: their ClientHello has a session identifier of 32 bytes, as OpenSSL's has. What `nvmf conform`
 * makes itself has none, and is answered with a ServerHello whatever it is, or not at all. One that is not secret has no TLS behind it.
 * @param most connections at a time
 */
export async function sloppyTls(
  port: number,
  fault: 'takes all' | 'takes nothing' | 'is not secret',
  most = Infinity,
): Promise<{ port: number; close: () => void }> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((host) => {
    sockets.add(host);
    host.on('error', () => {}); // resets are part of the cases
    host.once('data', (first) => {
      if (fault === 'is not secret' ? first[0] === 0 : first[0] === 0x16 && first[43] === 32) {
        const target = net.connect({ host: '127.0.0.1', port, noDelay: true });
        sockets.add(target);
        target.on('error', () => host.destroy());
        target.write(first);
        target.pipe(host);
        host.pipe(target);
        host.on('close', () => target.destroy());
      } else if (fault === 'takes nothing') {
        host.destroy();
      } else {
        host.resume().write(serverHello);
      }
    });
    host.on('close', () => sockets.delete(host));
  });
  server.maxConnections = most;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
