/** The commands under @oclif/core's own runner: what its tools (manifest, readme, plugins) see and run. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { groups } from '../../src/groups/index.js';
import { plainEnv, program } from '../support/cli.js';

const root = path.resolve(program, '..', '..');
const stock = (script: string, ...args: string[]) =>
  spawnSync(process.execPath, ['-e', script, ...args], {
    encoding: 'utf8',
    cwd: root,
    env: plainEnv({ OCLIF_DISABLE_ENGINE_WARNING: '1' }),
    timeout: 60_000,
  });
const execute = (...args: string[]) =>
  stock(`require('@oclif/core').execute({ dir: ${JSON.stringify(root)}, args: process.argv.slice(1) })`, ...args);

test('execute() runs commands with their output, exit status and errors', () => {
  const probe = execute('uring', 'probe', '--json');
  expect([probe.status, typeof JSON.parse(probe.stdout).available]).toEqual([0, 'boolean']);
  const plan = execute('dma', 'plan', '--reserved', '/dev/null', 'a=4K', '--json');
  expect([plan.status, JSON.parse(plan.stdout).maps[0].name]).toEqual([0, 'a']);
  const sum = execute('uring', 'sum', 'package.json', 'no-such-file');
  expect(sum.status).toBe(1);
  expect(sum.stdout).toMatch(/^[0-9a-f]{64} {2}package\.json\n$/);
  expect(execute('vhost-user', 'shmem', 'list', '/no/such.sock')).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^vioctl: vhost-user shmem list: connect \/no\/such\.sock: ENOENT/),
  });
  expect(execute('nvmf', 'ping')).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/^vioctl: nvmf ping: missing option: --nqn\n/),
  });
  expect(execute('vfio', 'bind', '--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('$ vioctl vfio bind') });
});

test('its manifest has every command with options, arguments and examples', () => {
  const made = stock(
    `const { Config } = require('@oclif/core');
    Config.load(${JSON.stringify(root)}).then((config) => console.log(JSON.stringify(config.commands.map(
      ({ id, summary, flags, args, examples }) => ({ id, summary, flags: Object.keys(flags), args: Object.keys(args), examples })))))`,
  );
  expect(made.stderr).toBe('');
  const commands = JSON.parse(made.stdout) as { id: string; summary: string; flags: string[]; args: string[]; examples: unknown[] }[];
  const table = Object.entries(groups).flatMap(([group, { verbs }]) =>
    Object.entries(verbs).map(([verb, { summary }]) => [`${group} ${verb}`.replaceAll(' ', ':'), summary]),
  );
  expect(commands.map(({ id, summary }) => [id, summary]).sort()).toEqual(table.sort());
  expect(commands.find(({ id }) => id === 'vhost-user:shmem:map')).toMatchObject({
    flags: expect.arrayContaining(['wait', 'dry-run', 'json', 'quiet']),
    args: ['control', 'mapping'],
    examples: [expect.objectContaining({ command: expect.stringContaining('vioctl vhost-user shmem map') })],
  });
});

test('package.json describes the groups as the table does', () => {
  const { oclif } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { oclif: { topics: object } };
  expect(oclif.topics).toEqual(Object.fromEntries(Object.entries(groups).map(([name, { summary }]) => [name, { description: summary }])));
});
