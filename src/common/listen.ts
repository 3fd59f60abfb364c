import { codeOf, type VioError, wrap } from './errors.js';

/** Ports below this need a privilege, unless net.ipv4.ip_unprivileged_port_start says otherwise. */
const privileged = 1024;

/** Why an address and port could not be listened on, with the hint that the errno asks for. */
export function listenError(address: string, port: number, err: unknown): VioError {
  return wrap(`listen on ${address} port ${port}`, err, { hint: hintOf(codeOf(err), port) });
}

function hintOf(code: string | undefined, port: number): string | undefined {
  switch (code) {
    case 'EADDRINUSE':
      return `ss -ltnp 'sport = :${port}' shows who has the port; port 0 takes a free one`;
    case 'EADDRNOTAVAIL':
      return 'ip -brief address lists the addresses of this host';
    case 'EACCES':
    case 'EPERM':
      return port < privileged ? 'ports below 1024 need root or CAP_NET_BIND_SERVICE' : undefined;
    case 'EAFNOSUPPORT':
      return 'IPv6 is switched off here: sysctl net.ipv6.conf.all.disable_ipv6';
    default:
      return undefined;
  }
}
