/** Listening sockets of a target. */
import { listenError } from '../../common/listen.js';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';

/** A socket that listens, and its port. */
export interface BoundSocket {
  fd: OwnedFd;
  port: number;
  /** A service manager has opened it, and goes on listening when this server does not. */
  activated?: boolean;
}

/** Ends a socket of this server: nobody listens there any more, though a service manager may keep it. */
export function endSocket({ fd }: BoundSocket): void {
  native().common.tcpShutdown(fd.fd);
  fd.close();
}

/** Listens at an address; connections wait until a target takes the socket. @throws VioError */
export function bindSocket(address: string, port: number): BoundSocket {
  try {
    const bound = native().common.tcpListen(address, port, address.includes(':'));
    return { fd: new OwnedFd(bound.fd), port: bound.port };
  } catch (err) {
    throw listenError(address, port, err);
  }
}
