// Every example of the README and of docs/ does what it shows, or says what it needs.
import fs from 'node:fs';
import path from 'node:path';
import { asShown, examplesOf, runExamples } from '../support/examples.js';

const root = path.resolve(__dirname, '..', '..');
const documents = ['README.md', ...(fs.readdirSync(path.join(root, 'docs'), { recursive: true }) as string[]).map((f) => `docs/${f}`)]
  .filter((file) => file.endsWith('.md'))
  .filter((file) => examplesOf(fs.readFileSync(path.join(root, file), 'utf8')).length > 0);

test('examples are found, with what they need', () => {
  const text = 'x\n```console\n$ a |\n> b\nout\n\n$ c\n```\nNeeds: root.\n\n```console server\n$ d\nready\n```\n';
  expect(examplesOf(text)).toEqual([
    { line: 3, command: 'a |\nb', expected: ['out', ''], server: false, sample: false, needs: undefined },
    { line: 7, command: 'c', expected: [], server: false, sample: false, needs: undefined },
    { line: 12, command: 'd', expected: ['ready'], server: true, sample: false, needs: 'root.' },
  ]);
});

test('output matches what is shown, but for what varies', () => {
  const matches: [string[], string][] = [
    [['a 1.5 s', '…', 'end'], 'a 22.75 s\nx\ny\nend\n'],
    [['served by pid 7, … more'], 'served by pid 4711, and more\n'],
    [[], ''],
    [['a   b'], 'a b\n'],
  ];
  for (const [expected, output] of matches) expect(asShown({ expected, server: false, sample: false }, output)).toBe(true);
  const differs: [string[], string][] = [
    [['a 1 s'], 'a 2 s\n'],
    [['a'], 'a\nb\n'],
    [[], 'x\n'],
    [['127.0.0.1'], '127.0.0.2\n'],
    [['a.b'], 'axb\n'],
  ];
  for (const [expected, output] of differs) expect(asShown({ expected, server: false, sample: false }, output)).toBe(false);
});

test('numbers of samples may differ, and only the first lines of a server count', () => {
  expect(asShown({ expected: ['IOPS 12 (3.5M/s)'], server: false, sample: true }, 'IOPS  4711 (2G/s)\n')).toBe(true);
  expect(asShown({ expected: ['IOPS 12'], server: false, sample: true }, 'errors 12\n')).toBe(false);
  expect(asShown({ expected: ['ready'], server: true, sample: false }, 'ready\nmore\n')).toBe(true);
  expect(asShown({ expected: ['ready'], server: true, sample: false }, 'failed\nready\n')).toBe(false);
});

test.each(documents)('%s', (file) => {
  const wrong = runExamples(fs.readFileSync(path.join(root, file), 'utf8'))
    .filter(({ example, output }) => !asShown(example, output))
    .map(({ example, output, status }) => `${file}:${example.line}: $ ${example.command}\n${output}(status ${status})`);
  expect(wrong).toEqual([]);
});
