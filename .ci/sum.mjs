// Sums the lines of .ci/reporter.cjs; the last line printed is the result.
import { readFileSync } from 'node:fs';

const rows = readFileSync(process.argv[2], 'utf8')
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line));
const sum = (key) => rows.reduce((n, row) => n + row[key], 0);
const slow = rows.filter((row) => row.seconds >= 10).sort((a, b) => b.seconds - a.seconds);
for (const row of slow.slice(0, 15)) console.log(`${String(row.seconds).padStart(5)} s  ${row.file}`);
for (const row of rows.filter((r) => r.failed)) console.log(`failed: ${row.file} (${row.failed})`);
const failed = sum('failed');
process.exitCode = failed === 0 && sum('passed') > 0 ? 0 : 1;
console.log(`${sum('passed')} passed, ${failed} failed`);
