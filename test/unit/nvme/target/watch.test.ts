import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../../src/native/index.js';
import { Configuration } from '../../../../src/nvme/target/config/configuration.js';
import { perform } from '../../../../src/nvme/target/serve/control.js';
import type { ControlRequest } from '../../../../src/nvme/target/serve/requests.js';
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

describe('resize of a source that hangs', () => {
  let dir: string;
  /** Lets the questions be answered, one after the other, once their file has a size. */
  let answers: ((bytes: number) => void)[];
  const image = (name: string): string => path.join(dir, name);
  const { storage } = native();
  beforeEach(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-target-'));
    for (const name of ['a', 'b']) fs.writeFileSync(image(name), Buffer.alloc(4096));
    await ask({ op: 'remove', nsid: 1 });
    await ask({ op: 'add', namespace: { source: image('a'), nsid: 1 } });
    answers = [];
    const measure = storage.measure.bind(storage);
    jest.spyOn(storage, 'measure').mockImplementation((store) =>
      new Promise<number>((resolve) =>
        answers.push((bytes) => {
          fs.truncateSync(subsystem.namespaces.get(1)?.source ?? image('a'), bytes);
          resolve(bytes);
        }),
      ).then(() => measure(store)),
    );
    jest.spyOn(storage, 'refresh').mockImplementation(() => {
      throw new Error('this would stop all hosts');
    });
  });
  afterEach(() => fs.rmSync(dir, { recursive: true }));
  const settings = { listen: [], referrals: [], subsystems: [] };
  const ask = (request: ControlRequest) =>
    perform(request, native().nvme, target, new Configuration(native().nvme, target, settings, () => {})) as Promise<{
      changed: boolean;
      would?: string[];
    }>;
  const until = async (count: number): Promise<void> => {
    while (answers.length < count) await new Promise((resolve) => setImmediate(resolve));
  };
  const sizes = (...list: number[]) => ({ namespaces: list.map((size) => expect.objectContaining({ size })) });

  test('keeps nobody else waiting, and is planned from what the source says at last', async () => {
    const dry = ask({ op: 'resize', nsid: 1, dryRun: true });
    const real = ask({ op: 'resize', nsid: 1 });
    expect(await ask({ op: 'list' })).toMatchObject({ subsystems: [sizes(4096)] });
    expect(await ask({ op: 'ana', group: 1, state: 'change' })).toMatchObject({ changed: true });
    answers[0]!(8192 + 100);
    expect(await dry).toMatchObject({ changed: false, would: ['resize namespace 1 from 4096 to 8192 bytes'], ...sizes(4096) });
    await until(2);
    answers[1]!(8192 + 100);
    expect(await real).toMatchObject({ changed: true, ...sizes(8192) });
    const again = ask({ op: 'resize', nsid: 1 });
    answers[2]!(8192 + 200);
    expect(await again).toMatchObject({ changed: false, ...sizes(8192) });
    expect(log).toEqual([`${image('a')} has 8192 bytes now`]);
  });

  test('a namespace that was removed meanwhile is an error; one that has its number now is asked itself', async () => {
    const gone = ask({ op: 'resize', nsid: 1 });
    await ask({ op: 'remove', nsid: 1 });
    answers[0]!(8192);
    await expect(gone).rejects.toMatchObject({ code: 'ENOENT' });
    await ask({ op: 'add', namespace: { source: image('a'), nsid: 1 } });
    const replaced = ask({ op: 'resize', nsid: 1 });
    await ask({ op: 'remove', nsid: 1 });
    await ask({ op: 'add', namespace: { source: image('b'), nsid: 1 } });
    answers[1]!(16384); // of the first one, which nobody is told of any more
    await until(3);
    answers[2]!(12288);
    expect(await replaced).toMatchObject({ changed: true, ...sizes(12288) });
  });

  test('reopen asks for the size in the same way', async () => {
    const reopened = ask({ op: 'reopen', nsid: 1 });
    expect(await ask({ op: 'list' })).toMatchObject({ subsystems: [sizes(4096)] });
    while (answers.length === 0) await new Promise((resolve) => setImmediate(resolve)); // it is opened first
    answers[0]!(12288);
    expect(await reopened).toMatchObject({ changed: true, ...sizes(12288) });
    expect(log).toEqual([`${image('a')} was opened anew`, `${image('a')} has 12288 bytes now`]);
  });
});
