// Runs in the guest: changes of virtual functions that are killed before each write of their journals, then undone or repeated:
// killed-sriov.ts IGB NVME [all]. Each kill takes a start of the real program, seconds under emulation: npm run soak has them all.
import fs from 'node:fs';
import { assert, type Case, cut, driverOf, leftovers, must, overrideOf, read, runCases, vio } from './harness.js';

const [igb = '', nvme = '', all] = process.argv.slice(2);
const at = (pf: string) => `/sys/bus/pci/devices/${pf}`;
const vfsOf = (pf: string): string[] =>
  [...Array(Number(read(`${at(pf)}/sriov_numvfs`))).keys()].map(
    (i) =>
      fs
        .readlinkSync(`${at(pf)}/virtfn${i}`)
        .split('/')
        .pop()!,
  );

/** All that a change may touch: the physical function, each virtual one, their addresses and records. */
function stateOf(pf: string): string {
  const [name] = fs.existsSync(`${at(pf)}/net`) ? fs.readdirSync(`${at(pf)}/net`) : [];
  const links = name === undefined ? [] : (JSON.parse(must(`ip -json link show dev ${name}`)) as { vfinfo_list?: unknown[] }[]);
  const vfs = vfsOf(pf).map((vf) => [vf, driverOf(vf), overrideOf(vf)]);
  const bound = '/run/vioctl/vfio/bound';
  const records = fs.existsSync(bound)
    ? fs
        .readdirSync(bound)
        .filter((name) => name.endsWith('.json'))
        .sort()
    : [];
  const attributes = ['sriov_numvfs', 'sriov_drivers_autoprobe'].map((file) => read(`${at(pf)}/${file}`));
  return JSON.stringify({ driver: driverOf(pf), override: overrideOf(pf), attributes, vfs, records, macs: links[0]?.vfinfo_list });
}

/** Kills a command at each write in turn until it comes through; restore must give the earlier state each time. @returns the kills */
async function killedEverywhere(pf: string, command: string): Promise<number> {
  const before = stateOf(pf);
  for (let nth = 1; nth < 60; nth++) {
    const { status, signal, stderr } = await cut(command, 'SIGKILL', nth);
    if (signal === null && status === 0) return nth - 1;
    assert.ok(signal === 'SIGKILL' || status === 137, `${command}: status ${status}, ${signal}: ${stderr}`);
    const restored = await vio('restore');
    assert.equal(restored.status, 0, `restore after write ${nth} of "${command}": ${restored.stderr}`);
    assert.deepEqual([stateOf(pf), leftovers()], [before, []], `write ${nth} of "${command}"`);
  }
  throw new Error(`${command} never came through`);
}

const kills = (options: string) => killedEverywhere(igb, `sriov ${igb} ${options}`);
const TWO = '--vfs 2 --driver vfio-pci';

const cases: Case[] = [
  {
    name: 'igb: restore gives back number, drivers, addresses and records',
    run: async () => {
      const made = await kills(`${TWO} --mac 52:54:00:00:00:01 --mac 52:54:00:00:00:02`);
      const removed = await kills('--vfs 0');
      // the journal, two attributes, the check, two addresses; of each function override, driver, check and record
      assert.ok(made >= 12 && removed >= 3, JSON.stringify({ made, removed }));
      return { made, removed };
    },
  },
  {
    name: 'apply that was killed anywhere is repeated',
    run: async () => {
      fs.writeFileSync('/tmp/on.yaml', `devices:\n- {device: '${igb}', vfs: 1, vfDriver: vfio-pci, macs: ['52:54:00:00:00:21']}\n`);
      fs.writeFileSync('/tmp/off.yaml', `devices:\n- {device: '${igb}', vfs: 0}\n`);
      let kills = 0;
      for (let nth = 1; nth < 60; nth++) {
        const { status, signal, stderr } = await cut('apply /tmp/on.yaml', 'SIGKILL', nth);
        const through = signal === null && status === 0;
        assert.ok(through || signal === 'SIGKILL' || status === 137, `status ${status}, ${signal}: ${stderr}`);
        if (!through) {
          kills++;
          const again = await vio('apply /tmp/on.yaml');
          assert.equal(again.status, 0, `write ${nth}: ${again.stderr}`);
        }
        assert.equal((await vio('apply /tmp/on.yaml --check')).status, 0, `write ${nth}`);
        assert.deepEqual([vfsOf(igb).map(driverOf), leftovers()], [['vfio-pci'], []], `write ${nth}`);
        assert.equal((await vio('apply /tmp/off.yaml')).status, 0, `write ${nth}`);
        if (through) break;
      }
      assert.ok(kills >= 8, `killed ${kills} times`);
      return kills;
    },
  },
];

const more: Case[] = [
  {
    name: 'igb: other addresses, fewer functions',
    run: async () => {
      must(`node bin/run.js vfio sriov ${igb} ${TWO} --mac 52:54:00:00:00:01 --mac 52:54:00:00:00:02`);
      const addressed = await kills(`${TWO} --mac 52:54:00:00:00:11 --mac 52:54:00:00:00:12`);
      const fewer = await kills('--vfs 1 --driver vfio-pci');
      must(`node bin/run.js vfio sriov ${igb} --vfs 0`);
      assert.ok(addressed >= 3 && fewer >= 8, JSON.stringify({ addressed, fewer }));
      return { addressed, fewer };
    },
  },
  {
    name: 'NVMe: restore gives back number, driver and record',
    run: async () => {
      const made = await killedEverywhere(nvme, `sriov ${nvme} --vfs 1 --driver vfio-pci`);
      const removed = await killedEverywhere(nvme, `sriov ${nvme} --vfs 0`);
      assert.ok(made >= 8 && removed >= 3, JSON.stringify({ made, removed }));
      return { made, removed };
    },
  },
];

runCases(all === undefined ? cases : [...cases, ...more]).then(
  () => process.exit(0),
  (err) => {
    console.error(err);
    process.exit(1);
  },
);
