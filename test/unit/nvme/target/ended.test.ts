import type { NativeController, NvmeNative, QueueCounters } from '../../../../src/native/nvme.js';
import type { ControllerState } from '../../../../src/nvme/target/model.js';
import { Subsystem } from '../../../../src/nvme/target/subsystem.js';

const none = { queues: 0, reads: 0, writes: 0, readBytes: 0, writtenBytes: 0, flushes: 0, others: 0, errors: 0, outstanding: 0 };
/** Controllers as the addon has them: one that is asked no more may be collected. */
class Engine {
  asked: NativeController[] = [];
  controllerStats(handle: NativeController): QueueCounters {
    this.asked.push(handle);
    return { ...(handle as unknown as QueueCounters) };
  }
}
let engine: Engine;
let subsystem: Subsystem;
beforeEach(() => {
  engine = new Engine();
  subsystem = new Subsystem(engine as unknown as NvmeNative, { nqn: 'nqn.2014-08.org.nvmexpress:unit' });
});
/** An association that did one read and has ended. @returns its counters */
function end(queues = 0): QueueCounters {
  const handle = { ...none, reads: 1, readBytes: 512, queues };
  const controller = { cntlid: subsystem.takeCntlid()!, handle } as unknown as ControllerState;
  subsystem.controllers.set(controller.cntlid, controller);
  subsystem.retire(controller);
  subsystem.retire(controller); // twice counts once
  return handle;
}
/** How many handles are held. */
const held = (): number => {
  engine.asked = [];
  subsystem.counters();
  return new Set(engine.asked).size;
};

test('ended associations are folded into sums although nobody reads them', () => {
  for (let i = 1; i <= 1000; i++) {
    end();
    if (i % 333 === 0) expect(held()).toBeLessThanOrEqual(64);
  }
  expect(subsystem.counters()).toEqual({ ...none, reads: 1000, readBytes: 512_000 });
  expect(held()).toBe(0);
});

test('one whose commands hang counts on until they end, and is not asked for every association that ends', () => {
  const hung = Array.from({ length: 200 }, () => end(1));
  engine.asked = [];
  for (let i = 0; i < 1000; i++) end();
  expect(engine.asked.length).toBeLessThan(10_000);
  for (const one of hung) Object.assign(one, { reads: 3, queues: 0 });
  for (let i = 0; i < 1000; i++) end();
  expect(held()).toBeLessThan(500);
  expect(subsystem.counters().reads).toBe(2000 + 600);
  expect(held()).toBe(0);
});
