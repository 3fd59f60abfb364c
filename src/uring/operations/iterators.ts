import fs from 'node:fs';
import { type Address, addressSize, decodeAddress } from '../request/address.js';
import { prep } from '../request/prep.js';
import { checkOptions, type File, integer, type Request, requestError } from '../request/request.js';
import { BufferRing } from '../ring/buffer-ring.js';
import { Multishot, type Shot } from '../ring/multishot.js';
import type { Ring } from '../ring/ring.js';

interface SignalOptions {
  signal?: AbortSignal;
}

const ENOBUFS = -105;
/** Bytes of a buffer before the datagram in it: struct io_uring_recvmsg_out, and the sender's address. */
const datagramLead = 16 + addressSize;

/** A datagram as datagrams() yields it. */
export interface Datagram {
  /** Its bytes, until the next one is asked for. */
  data: Buffer;
  /** Who sent it; undefined if the sender has no address. */
  from: Address | undefined;
  /** MSG_*: MSG_TRUNC (0x20) says that it was longer than a buffer. */
  flags: number;
}

/** The connections of a listener; those that nobody took are closed. */
export async function* connections(ring: Ring, listener: File, options: SignalOptions): AsyncGenerator<number, void> {
  checkOptions(options, ['signal']);
  const shots = new Multishot(ring, prep.acceptMultishot(listener), options.signal);
  try {
    for (let shot = await shots.next(); shot; shot = await shots.next()) {
      if (shot.result < 0) throw requestError(shot.result, 'accept', listener);
      yield shot.result;
    }
  } finally {
    for (const { result } of await shots.stop()) if (result >= 0) fs.closeSync(result);
  }
}

/** What a multishot request brings, until its end. */
export async function* pieces(
  ring: Ring,
  call: string,
  file: File,
  request: Request,
  buffers: BufferRing,
  options: SignalOptions,
): AsyncGenerator<Buffer, void> {
  checkOptions(options, ['signal']);
  for await (const { result, id } of shared(ring, call, file, request, buffers, options.signal)) {
    if (result === 0) return;
    yield buffers.take(id!, result);
  }
}

/** struct io_uring_recvmsg_out {namelen, controllen, payloadlen, flags}, then room for the name, then the datagram. */
export async function* datagrams(ring: Ring, socket: File, buffers: BufferRing, options: SignalOptions): AsyncGenerator<Datagram, void> {
  checkOptions(options, ['signal']);
  integer('size of the buffers', buffers.size, datagramLead + 1, 0x7fff_ffff);
  const request = prep.recvmsgMultishot(socket, buffers.group, addressSize);
  for await (const { result, id } of shared(ring, 'recvmsg', socket, request, buffers, options.signal)) {
    const bytes = buffers.take(id!, result);
    const name = bytes.subarray(16, 16 + Math.min(addressSize, bytes.readUInt32LE(0)));
    yield { data: bytes.subarray(datagramLead), from: decodeAddress(name), flags: bytes.readUInt32LE(12) };
  }
}

/** The completions of a multishot request with buffers; each buffer goes back when the next completion is asked for. */
async function* shared(
  ring: Ring,
  call: string,
  file: File,
  request: Request,
  buffers: BufferRing,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ result: number; id: number | undefined }, void> {
  const idOf = ({ flags }: Shot): number | undefined => BufferRing.idOf(flags);
  const claim = (shot: Shot): void => {
    const id = idOf(shot);
    if (id !== undefined) buffers.take(id, 0);
  };
  const back = (shot: Shot): void => {
    const id = idOf(shot);
    if (id !== undefined) buffers.give(id);
  };
  // The kernel ends the request when it finds no buffer, and may at any other time: then it begins again.
  for (;;) {
    await buffers.available(signal);
    const shots = new Multishot(ring, request, signal, claim);
    try {
      for (let shot = await shots.next(); shot; shot = await shots.next()) {
        if (shot.result === ENOBUFS && buffers.registered) continue;
        if (shot.result < 0) throw requestError(shot.result, call, file);
        try {
          yield { result: shot.result, id: idOf(shot) };
        } finally {
          back(shot);
        }
        if (shot.result === 0) return;
      }
    } finally {
      (await shots.stop()).forEach(back);
    }
  }
}
