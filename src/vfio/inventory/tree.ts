import type { DeviceRow } from './inventory.js';

/** A device with what stands before its address in a drawn tree: `│  └─ `. */
export type TreeRow = DeviceRow & { branch: string };

/**
 * Devices below the bridges that lead to them, virtual functions below their physical one: depth first, each level by address.
 * A device whose parent is not among the rows is a root.
 */
export function asTree(rows: readonly DeviceRow[]): TreeRow[] {
  const known = new Set(rows.map(({ bdf }) => bdf));
  const children = new Map<string | undefined, DeviceRow[]>();
  for (const row of rows) {
    const parent = row.parent !== undefined && row.parent !== row.bdf && known.has(row.parent) ? row.parent : undefined;
    const list = children.get(parent);
    if (list) list.push(row);
    else children.set(parent, [row]);
  }
  const found: TreeRow[] = [];
  // an own stack: the depth of a tree of files is not ours to choose
  const stack = (children.get(undefined) ?? []).map((row) => ({ row, before: '', last: true, root: true })).reverse();
  for (let at = stack.pop(); at; at = stack.pop()) {
    const { row, before, last, root } = at;
    found.push({ ...row, branch: root ? '' : `${before}${last ? '└─ ' : '├─ '}` });
    const below = root ? '' : `${before}${last ? '   ' : '│  '}`;
    const list = children.get(row.bdf) ?? [];
    for (let i = list.length - 1; i >= 0; i--) stack.push({ row: list[i]!, before: below, last: i === list.length - 1, root: false });
  }
  // links in a circle, which no kernel has, must not hide devices
  const drawn = new Set(found.map(({ bdf }) => bdf));
  return [...found, ...rows.filter(({ bdf }) => !drawn.has(bdf)).map((row) => ({ ...row, branch: '' }))];
}
