/** Edit distance with transpositions, as far as a typing error needs it. */
function distance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)]);
  for (let j = 1; j <= b.length; j++) rows[0]![j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      rows[i]![j] = best;
    }
  }
  return rows[a.length]![b.length]!;
}

/** The candidate that was probably meant, or undefined: a prefix, or at most a third of the letters wrong. */
export function suggest(typed: string, candidates: string[]): string | undefined {
  let best: [number, string] | undefined;
  for (const candidate of candidates) {
    const d = candidate.startsWith(typed) && typed.length >= 2 ? 1 : distance(typed, candidate);
    if (d <= Math.max(1, Math.floor(candidate.length / 3)) && (!best || d < best[0])) best = [d, candidate];
  }
  return best?.[1];
}
