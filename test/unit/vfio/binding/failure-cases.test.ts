import fs from 'node:fs';
import path from 'node:path';
import { FAILURE_CASES } from '../../../support/failure-cases.js';
import { sessionCases } from '../../../vm/session/cases.js';
import { working } from '../../../vm/vfio/cases.js';
import { failing } from '../../../vm/vfio/failures.js';
import { interruptions } from '../../../vm/vfio/interrupted.js';

const vm = path.resolve(__dirname, '..', '..', '..', 'vm');

test('the catalogue has 49 cases, each once; at least 45 are shown, the others say why not', () => {
  expect(FAILURE_CASES.map(({ number }) => number)).toEqual(Array.from({ length: 49 }, (_, i) => i + 1));
  const open = FAILURE_CASES.filter(({ shown }) => shown.length === 0);
  expect(open.length).toBeLessThanOrEqual(4);
  for (const one of FAILURE_CASES) expect([one.number, one.why === undefined]).toEqual([one.number, one.shown.length > 0]);
});

test('every test that the catalogue names is there', () => {
  const names = {
    bind: new Set([...working, ...failing, ...interruptions].map(({ name }) => name)),
    session: new Set(sessionCases.map(({ name }) => name)),
  };
  const missing = FAILURE_CASES.flatMap(({ number, shown }) =>
    shown
      .filter(([source, name]) =>
        typeof source === 'string'
          ? !names[source].has(name)
          : !fs.readFileSync(path.join(vm, source.file), 'utf8').includes(`test('${name}'`),
      )
      .map(([, name]) => `${number}: ${name}`),
  );
  expect(missing).toEqual([]);
});

test('case names are unique', () => {
  const names = sessionCases.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
});
