/** A host and a port, and how they are written. */

/** `address` is an IPv4 or IPv6 address (with a scope, as `fe80::1%eth0`), or a name to be looked up. */
export interface Place {
  address: string;
  port: number;
}

/** An address as it stands in front of a port. */
export const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);

/** `ADDRESS:PORT`, or `[ADDRESS]:PORT` of IPv6. */
export const placeText = ({ address, port }: Place): string => `${bracketed(address)}:${port}`;
