import { native } from '../../../../src/native/index.js';
import { Subsystem } from '../../../../src/nvme/target/subsystem.js';
import { Target } from '../../../../src/nvme/target/target.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
let target: Target;
let subsystem: Subsystem;
let log: string[];
let failures = { count: 0, error: '' };
beforeEach(() => {
  failures = { count: 0, error: '' };
  jest.spyOn(native().storage, 'failures').mockImplementation(() => failures);
  log = [];
  target = new Target(native().nvme, { log: (text) => log.push(text) });
  subsystem = new Subsystem(native().nvme, { nqn });
  subsystem.add({ source: 'ram:4096' });
  target.addSubsystem(subsystem);
});
afterEach(async () => {
  jest.restoreAllMocks();
  await target.stop();
});

test.each([
  ['a namespace', () => target.remove(subsystem, 1)],
  ['its subsystem', () => target.removeSubsystem(subsystem)],
])('failures that nobody has been told of are told when %s is removed', async (_what, remove) => {
  failures = { count: 7, error: 'EIO' };
  await remove();
  expect(log.filter((line) => line.includes('failed'))).toEqual(['ram:4096: 7 requests have failed: EIO']);
  expect(native().storage.failures).toHaveBeenCalledTimes(1);
});
