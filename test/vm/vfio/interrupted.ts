// Runs of the real program that are cut short at every step: before each write of its journal.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { assert, type Case, cut, does, driverOf, leftovers, must, NVME, overrideOf, program, read, until, vio } from './harness.js';

const state = (bdf: string): string => `${driverOf(bdf)} ${overrideOf(bdf)}`;

/** One restore at a time, as two would replay the same journal. */
let turn: Promise<unknown> = Promise.resolve();
const inTurn = <T>(body: () => Promise<T>): Promise<T> => {
  const mine = turn.then(body);
  turn = mine.catch(() => {});
  return mine;
};

/** The step at which a journal stopped. */
function stepOf(bdf: string): string | undefined {
  const dir = '/run/vioctl/vfio/journal';
  for (const name of fs.existsSync(dir) ? fs.readdirSync(dir).filter((n) => n.includes(bdf) && n.endsWith('.json')) : []) {
    const { devices } = JSON.parse(fs.readFileSync(`${dir}/${name}`, 'utf8')) as { devices: { step: string }[] };
    return devices[0]!.step;
  }
  return undefined;
}

/** Kills a command at each journal write in turn until it comes through; restore must give the earlier state each time. */
async function killed(verb: string, bdf: string): Promise<string[]> {
  const before = state(bdf);
  const steps: string[] = [];
  for (let nth = 1; nth < 16; nth++) {
    const { status, signal, stderr } = await cut(`${verb} ${bdf}`, 'SIGKILL', nth);
    if (signal === null && status === 0) return steps;
    assert.ok(signal === 'SIGKILL' || status === 137, `${verb}: status ${status}, ${signal}: ${stderr}`);
    const step = stepOf(bdf) ?? 'no journal'; // none was written yet, or another series' restore was quicker
    steps.push(step);
    await inTurn(async () => {
      const { status: restored, stderr: why } = await vio('restore');
      assert.equal(restored, 0, `restore after ${verb} was killed at "${step}": ${why}`);
    });
    assert.equal(state(bdf), before, `${verb} was killed at "${step}"`);
  }
  throw new Error(`${verb} never came through`);
}

/** Interrupts a command at each journal write in turn; it must undo its work itself, and say 130. */
async function interrupted(verb: string, bdf: string): Promise<number> {
  const before = state(bdf);
  for (let nth = 1; nth < 16; nth++) {
    const { status, signal, stderr } = await cut(`${verb} ${bdf}`, 'SIGINT', nth);
    if (status === 0) return nth - 1;
    // so early that nobody catches it yet, the signal itself ends the program
    assert.ok(status === 130 || signal === 'SIGINT', `${verb}: status ${status}, ${signal}: ${stderr}`);
    // an interrupt that comes with the last step lets the work stand: it is done then
    if (state(bdf) !== before) {
      assert.equal(leftovers().filter((name) => name.includes(bdf)).length, 0);
      await does(`unbind ${bdf}`);
    }
    assert.equal(state(bdf), before, `${verb} was interrupted at journal write ${nth}: ${stderr}`);
    assert.deepEqual(
      leftovers().filter((name) => name.includes(bdf)),
      [],
    );
  }
  throw new Error(`${verb} never came through`);
}

/**
 * Stops a bind just before it gives the device to its new driver, while it has none.
 * @returns lets it go on, and resolves to its end
 */
async function stoppedBeforeBind(bdf: string): Promise<() => Promise<number | null>> {
  for (let nth = 1; nth < 8; nth++) {
    const child = spawn(program[0]!, [...program.slice(1), 'bind', bdf], {
      stdio: 'ignore',
      env: { ...process.env, LD_PRELOAD: '/tmp/cut.so', CUT_AT: String(nth), CUT_SIGNAL: '19' }, // SIGSTOP
    });
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    const stopped = () => /^State:\tT/m.test(read(`/proc/${child.pid}/status`));
    await until('the bind stopped', () => stopped() || child.exitCode !== null, 60);
    const go = () => {
      child.kill('SIGCONT');
      return ended;
    };
    if (stopped() && stepOf(bdf) === 'unbind' && driverOf(bdf) === '') return go;
    assert.equal(await go(), 0);
    await does(`unbind ${bdf}`);
  }
  throw new Error('bind never stood between unbind and bind');
}

export const interruptions: Case[] = [
  {
    name: 'another driver takes the device between unbind and bind: it is taken back',
    failure: true,
    run: async () => {
      const go = await stoppedBeforeBind(NVME[1]);
      const at = `/sys/bus/pci/devices/${NVME[1]}`;
      must(`echo nvme > ${at}/driver_override && echo ${NVME[1]} > /sys/bus/pci/drivers/nvme/bind`);
      assert.equal(driverOf(NVME[1]), 'nvme');
      assert.equal(await go(), 0);
      assert.deepEqual([driverOf(NVME[1]), overrideOf(NVME[1])], ['vfio-pci', 'vfio-pci']);
      await does(`unbind ${NVME[1]}`);
      assert.equal(state(NVME[1]), 'nvme ');
    },
  },
  {
    name: 'kill -9 of bind and of unbind at every step and restore; SIGINT at every step',
    failure: true,
    once: true,
    run: async () => {
      await does(`bind ${NVME[2]}`);
      const [bind, int, unbind] = await Promise.all([killed('bind', NVME[0]), interrupted('bind', NVME[1]), killed('unbind', NVME[2])]);
      // before the journal, and with it at none, override, unbind, bind; bind has verify too, since it writes a record at the end
      assert.ok(bind.length >= 6, `bind was killed at ${bind}`);
      assert.ok(unbind.length >= 5, `unbind was killed at ${unbind}`);
      assert.ok(int >= 5, `only ${int} interrupts`);
      for (const bdf of NVME) await does(`unbind ${bdf}`);
      return { bind, unbind, int };
    },
  },
  {
    name: 'an interrupted device is refused until restore',
    failure: true,
    run: async () => {
      const { signal, status } = await cut(`bind ${NVME[0]}`, 'SIGKILL', 4);
      assert.ok(signal === 'SIGKILL' || status === 137);
      const { status: second, stderr } = await vio(`bind ${NVME[0]} --json`);
      assert.equal(second, 1);
      assert.match(stderr, /"code":"INTERRUPTED".*vioctl vfio restore/s);
      const dry = await vio('restore --dry-run');
      assert.match(dry.stdout, new RegExp(`# ${NVME[0]}`));
      const { stdout } = await vio('doctor --json');
      assert.match(stdout, /an interrupted bind left 0000:01:00\.0 half changed/);
      await does('restore');
      assert.equal(state(NVME[0]), 'nvme ');
      must('true');
    },
  },
];
