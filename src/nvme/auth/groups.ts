/** The Diffie-Hellman groups of DH-HMAC-CHAP: the safe primes of RFC 7919, computed from its formula instead of listed. */

/** Group identifier of an exchange without Diffie-Hellman. */
export const nullGroup = 0;

interface Formula {
  readonly name: string;
  readonly bits: number;
  /** The constant X of the group's formula (RFC 7919, appendix A). */
  readonly x: bigint;
}
const formulas = new Map<number, Formula>([
  [1, { name: 'ffdhe2048', bits: 2048, x: 560316n }],
  [2, { name: 'ffdhe3072', bits: 3072, x: 2625351n }],
  [3, { name: 'ffdhe4096', bits: 4096, x: 5736041n }],
  [4, { name: 'ffdhe6144', bits: 6144, x: 15705020n }],
  [5, { name: 'ffdhe8192', bits: 8192, x: 10965728n }],
]);

/** Names of groups, for options and logs. */
export const groupNames = new Map<number, string>([[nullGroup, 'null'], ...[...formulas].map(([id, { name }]) => [id, name] as const)]);

const primes = new Map<number, Buffer>();

/** floor(e * 2^bits): the sum of 1/k!, with room for what the divisions cut off. */
function scaledE(bits: number): bigint {
  const room = 64n;
  let [term, sum] = [1n << (BigInt(bits) + room), 0n];
  for (let k = 1n; term > 0n; k++) {
    sum += term;
    term /= k;
  }
  return sum >> room;
}

/** The prime of a group, big-endian. The generator is 2. @throws RangeError for a group that has none */
export function groupPrime(id: number): Buffer {
  const known = primes.get(id);
  if (known) return known;
  const formula = formulas.get(id);
  if (!formula) throw new RangeError(`no group ${id}`);
  const { bits, x } = formula;
  const wide = BigInt(bits);
  const p = (1n << wide) - (1n << (wide - 64n)) + ((scaledE(bits - 130) + x) << 64n) - 1n;
  const prime = Buffer.from(p.toString(16), 'hex');
  primes.set(id, prime);
  return prime;
}
