// Runs the examples of documents and writes what they print into them: `npx tsx scripts/examples.ts docs/uring.md …`. Read
// the difference before you commit it: what is wrong becomes what the document says.
import fs from 'node:fs';
import path from 'node:path';

// The tests are CommonJS and look for files from here.
Object.assign(globalThis, { __dirname: path.resolve('test/support') });
const { asShown, runExamples } = await import('../test/support/examples.js');

for (const file of process.argv.slice(2)) {
  const text = fs.readFileSync(file, 'utf8');
  const lines = text.split('\n');
  for (const { example, output } of runExamples(text).reverse()) {
    if (example.server || asShown(example, output)) continue;
    const at = example.line - 1 + example.command.split('\n').length;
    const shown = output === '' ? [] : output.replace(/\n$/, '').split('\n');
    lines.splice(at, example.expected.length, ...shown);
  }
  fs.writeFileSync(file, lines.join('\n'));
}
