import net, { type AddressInfo } from 'node:net';

/** One PDU as its bytes, split by PLEN alone. */
export type Change = (pdu: Buffer, connection: { digests: number; seen: number }) => Buffer[];

/** Cuts a stream into PDUs by their PLEN; a PLEN that cannot be is passed on with all that follows. */
class Splitter {
  #rest: Buffer = Buffer.alloc(0);
  *push(chunk: Buffer): Generator<Buffer> {
    this.#rest = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    for (;;) {
      if (this.#rest.length < 8) return;
      const plen = this.#rest.readUInt32LE(4);
      const whole = plen < 8 || plen > 8 << 20 ? this.#rest.length : plen;
      if (this.#rest.length < whole) return;
      yield Buffer.from(this.#rest.subarray(0, whole));
      this.#rest = this.#rest.subarray(whole);
    }
  }
}

/**
 * A target that breaks a rule: a relay to a good one that changes what the target sends, and passes on what the host sends
 * byte by byte.
 */
export async function brokenTarget(port: number, change: Change): Promise<{ port: number; cut: () => number; close: () => void }> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((host) => {
    const target = net.connect({ host: '127.0.0.1', port, noDelay: true });
    host.setNoDelay(true);
    const splitter = new Splitter();
    const connection = { digests: 0, seen: 0 };
    for (const socket of [host, target]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {}); // resets are part of the cases
    }
    host.on('data', (chunk) => target.write(chunk));
    target.on('data', (chunk) => {
      for (const pdu of splitter.push(chunk)) {
        if (pdu[0] === 1) connection.digests = pdu[11]!;
        for (const out of change(pdu, connection)) host.write(out);
        connection.seen++;
      }
    });
    host.on('close', () => target.destroy());
    target.on('close', () => host.destroySoon());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    /** Ends the connections that there are. @returns how many ends they had */
    cut: () => {
      const ends = sockets.size;
      for (const socket of sockets) socket.destroy();
      return ends;
    },
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
