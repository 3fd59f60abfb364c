import { boot } from './lab.js';

// The same cases as on this machine, by jest inside the guest; and what only a guest may do.
const suite = 'node node_modules/jest/bin/jest.js --ci --cacheDirectory /tmp/jest test/native/uring test/unit/uring';

describe.each(['6.1', '6.12', '7'] as const)('kernel %s', (kernel) => {
  test('the file-registration cases and the traps', async () => {
    const result = await boot({ kernel, cmd: `mkdir -p /var/tmp; ${suite} 2>&1`, smp: 2, memory: 2048, timeout: 480 });
    const summary = /^Tests: .*$/m.exec(result.stdout)?.[0] ?? result.stdout.slice(-2000);
    expect({ status: result.status, failed: result.stdout.match(/^ {2}● .*$/gm), summary }).toMatchObject({ status: 0, failed: null });
    expect(summary).toMatch(/^Tests: +(?:[4-9]\d|\d{3}) passed/);
  });
});
