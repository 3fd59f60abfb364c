// Sums the lines of .ci/reporter.cjs; the last line printed is the result. Of a file that was run twice the second run
// counts. `sum.mjs --failed STEP FILE` prints the test files of a step that failed.
import { readFileSync } from 'node:fs';

const args = process.argv.slice(2);
const rows = readFileSync(args.at(-1), 'utf8')
  .split('\n')
  .filter(Boolean)
  .map((line) => JSON.parse(line));

if (args[0] === '--failed') {
  console.log(
    rows
      .filter((row) => row.step === args[1] && row.failed > 0)
      .map((row) => row.file)
      .join(' '),
  );
} else {
  const last = new Map(rows.map((row) => [`${row.step}\0${row.file}`, row]));
  const results = [...last.values()];
  const sum = (key) => results.reduce((n, row) => n + row[key], 0);
  // Seconds of each step and, below it, of its files: files run side by side, so they add up to more than their step.
  const line = (row, indent) => console.log(`${String(row.seconds).padStart(5)} s  ${indent}${row.file}`);
  const steps = results.filter((row) => row.step === undefined);
  for (const step of steps) {
    line(step, '');
    const files = results.filter((row) => row.step === step.file).sort((a, b) => b.seconds - a.seconds);
    for (const row of files) line(row, '  ');
  }
  for (const row of results)
    if (row.late) console.log(`left out: ${row.file} (${row.late} tests): the time of "${row.step}" was over when its turn came`);
  for (const row of rows)
    if (row.failed && !last.get(`${row.step}\0${row.file}`).failed) console.log(`passed at the second attempt: ${row.file}`);
  for (const row of results) if (row.failed) console.log(`failed: ${row.file} (${row.failed})`);
  const failed = sum('failed');
  process.exitCode = failed === 0 && sum('passed') > 0 ? 0 : 1;
  console.log(`${sum('passed')} passed, ${failed} failed`);
}
