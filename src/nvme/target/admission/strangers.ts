/** Hosts that have not proved who they are: which of them goes when there is no room. */

/**
 * The oldest of the address that has the most: whoever floods a target displaces himself, and nobody at another address.
 * @param strangers the oldest first
 */
export function surplus<T>(strangers: readonly T[], addressOf: (stranger: T) => string): T | undefined {
  const counts = new Map<string, number>();
  for (const one of strangers) counts.set(addressOf(one), (counts.get(addressOf(one)) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return strangers.find((one) => counts.get(addressOf(one)) === most);
}
