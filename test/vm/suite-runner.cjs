// The part of jest's interface that tests of a suite (suite.ts) use, without jest: under emulation that takes minutes to start. Tests run one after the
// other in the order in which they are written.
const { expect } = require('expect');
const { fn } = require('jest-mock');
const { format } = require('node:util');

const hooks = ['beforeAll', 'afterAll', 'beforeEach', 'afterEach'];
const block = (title, parent) => ({ title, parent, items: [], ...Object.fromEntries(hooks.map((hook) => [hook, []])) });
let here = block('', undefined);
const top = here;

const rows = (add) => (table) => (title, run) => {
  for (const row of table) {
    const values = Array.isArray(row) ? row : [row];
    add(format(title.replaceAll('%p', '%o'), ...values).slice(0, 200), () => run(...values));
  }
};
const test = (title, run) => here.items.push({ title, run });
const describe = (title, run) => {
  const inner = block(title, here);
  here.items.push(inner);
  here = inner;
  run();
  here = inner.parent;
};
test.each = rows(test);
describe.each = rows(describe);
for (const hook of hooks) globalThis[hook] = (run) => here[hook].push(run);
Object.assign(globalThis, { describe, test, it: test, expect, jest: { fn } });

const LIMIT = 120_000; // milliseconds of one test
const times = [];
let passed = 0;
let failed = 0;

const pathOf = (one) => (one?.title ? [...pathOf(one.parent), one.title] : one ? pathOf(one.parent) : []);
const fail = (where, err) => {
  failed++;
  console.log(`failed: ${where}\n${String(err?.stack ?? err).slice(0, 2000)}`);
};
const timed = async (run) => {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end within ${LIMIT} ms`)), LIMIT);
  });
  try {
    await Promise.race([run(), limit]);
  } finally {
    clearTimeout(timer);
  }
};

async function runTest(one, parent) {
  const where = [...pathOf(parent), one.title].join(' › ');
  const around = [];
  for (let outer = parent; outer; outer = outer.parent) around.unshift(outer);
  const start = performance.now();
  let wrong;
  const attempt = async (run) => {
    try {
      await timed(async () => run());
    } catch (err) {
      wrong ??= { err };
    }
  };
  for (const outer of around) for (const run of outer.beforeEach) await attempt(run);
  if (!wrong) await attempt(one.run);
  for (const outer of around.reverse()) for (const run of outer.afterEach) await attempt(run);
  times.push([performance.now() - start, where]);
  if (wrong) fail(where, wrong.err);
  else passed++;
}

async function runBlock(one) {
  const each = async (runs) => {
    for (const run of runs)
      try {
        await timed(async () => run());
      } catch (err) {
        fail(pathOf(one).join(' › '), err);
      }
  };
  await each(one.beforeAll);
  for (const item of one.items) await (item.items ? runBlock(item) : runTest(item, one));
  await each(one.afterAll);
}

/** Runs what was registered; prints what failed and the slowest, and `N passed, M failed`. */
exports.run = async () => {
  process.on('uncaughtException', (err) => fail('outside of tests', err));
  await runBlock(top);
  for (const [ms, where] of times.sort((a, b) => b[0] - a[0]).slice(0, 8)) console.log(`slow: ${Math.round(ms)} ms ${where}`);
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
};
