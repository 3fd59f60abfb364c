import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import * as api from '../../../src/uring/index.js';
import { plainEnv } from '../../support/cli.js';

const root = path.resolve(__dirname, '..', '..', '..');
const text = fs.readFileSync(path.join(root, 'docs/uring-api.md'), 'utf8');
const mentioned = (name: string): boolean => new RegExp(`\\b${name}\\b`).test(text);

test('every export, every method, every property and every option is documented', () => {
  const names = Object.entries(api).flatMap(([name, value]) => {
    if (name === 'prep') return [name, ...Object.keys(value)];
    if (typeof value !== 'function' || !/^class\b/.test(String(value)) || ['VioError', 'Sysroot'].includes(name)) return [name];
    return [name, ...Object.getOwnPropertyNames(value.prototype).filter((member) => member !== 'constructor')];
  });
  expect(names.length).toBeGreaterThan(120);
  expect(names.filter((name) => !mentioned(name))).toEqual([]);
});

test('what the documentation calls exists', () => {
  const calls = [...text.matchAll(/`(?:io|ring|prep|BufferRing)\.(\w+)\(/g)].map((match) => match[1]!);
  const known = new Set(
    [api.Operations, api.Ring, api.BufferRing].flatMap((one) => [
      ...Object.getOwnPropertyNames(one.prototype),
      ...Object.getOwnPropertyNames(one),
    ]),
  );
  for (const line of text.split('\n').filter((one) => one.startsWith('| `')))
    for (const match of line.split('|')[1]!.matchAll(/`(\w+)\(/g)) calls.push(match[1]!);
  expect(calls.length).toBeGreaterThan(30);
  expect(calls.filter((name) => name !== 'NAME' && !known.has(name) && !(name in api.prep))).toEqual([]);
});

test('its programs run', () => {
  const programs = [...text.matchAll(/```js\n([\s\S]*?)```/g)].map((match) => match[1]!);
  expect(programs).toHaveLength(2);
  const dir = fs.mkdtempSync(path.join(root, 'build', 'api-')); // inside the package its own name resolves
  try {
    programs.forEach((source, i) => {
      fs.writeFileSync(path.join(dir, `${i}.mjs`), source);
      const { status, stderr } = spawnSync(process.execPath, [`${i}.mjs`], { cwd: dir, encoding: 'utf8', env: plainEnv() });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    });
    expect(fs.readFileSync(path.join(dir, 'state'), 'utf8')).toBe('state');
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});
