/** Messages of `nvmf serve` on standard error: hosts cannot forge them, programs can read them. */
import { connectHost, serveTarget } from '../support/nvme-target.js';

// all that a name may hold, and what another message would look like
const hostnqn = 'nqn.2014-08.org.example:x" is authenticated (sha512); 192.0.2.1 port 7: host \\nqn\u202eä';

test('text: the name of a host stands in quotes if it is not plain', async () => {
  const target = await serveTarget(['ram:1M']);
  await (await connectHost(target, { hostnqn })).disconnect();
  expect(await target.stop()).toBe(0);
  const lines = target.messages().trimEnd().split('\n');
  const told = lines.find((line) => line.includes('as controller'))!;
  expect(told).toMatch(/^127\.0\.0\.1 port \d+: host "nqn([^"\\]|\\.)*" uses nqn\.\S+ as controller 1$/);
  expect(target.messages()).not.toContain('\u202e');
});

test('--log-format json: one object a line', async () => {
  const target = await serveTarget(['ram:1M', '--log-format', 'json']);
  await (await connectHost(target, { hostnqn })).disconnect();
  while (!target.messages().includes('"disconnect"')) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(await target.stop()).toBe(0);
  const lines = target.messages().trimEnd().split('\n');
  const objects = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const one of objects)
    expect(one).toMatchObject({ time: expect.stringMatching(/^\d{4}-.*Z$/), event: expect.any(String), message: expect.any(String) });
  const peer = expect.stringMatching(/^127\.0\.0\.1 port \d+$/);
  for (const event of ['connect', 'disconnect'])
    expect(objects.filter((one) => one.event === event)).toEqual([
      expect.objectContaining({ host: hostnqn, subsystem: target.nqn, controller: 1, peer }),
    ]);
  expect(target.messages()).not.toContain('\u202e');
});
