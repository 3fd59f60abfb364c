// Completion in the three real shells: what each offers at a place of the command line.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { program, vioctl } from '../support/cli.js';
import { PciTree } from '../support/pci-tree.js';
import { skip, which } from '../support/skip.js';

const root = path.resolve(program, '..', '..');
const completions = path.join(root, 'completions');
let dir: string;
let server: net.Server;
let tree: PciTree;

beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-completion-'));
  for (const name of ['my file.mig', 'my other.mig', "it's.mig", 'plain.mig', 'list']) fs.writeFileSync(path.join(dir, name), '');
  fs.mkdirSync(path.join(dir, 'a dir'));
  server = net.createServer().listen(path.join(dir, 'the.sock'));
  await new Promise((resolve) => server.once('listening', resolve));
  tree = new PciTree();
  tree.device('0000:01:00.0');
  tree.device('0000:01:00.1');
});
afterAll(() => {
  server.close();
  tree.remove();
  fs.rmSync(dir, { recursive: true, force: true });
});

/** The words that bash offers behind these; the last one is the word under the cursor. */
function bash(...words: string[]): string[] {
  const script = `
    . '${completions}/vioctl.bash' || exit 1
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vioctl vioctl "\${@: -1}" "\${@: -2:1}"
    ((\${#COMPREPLY[@]})) && printf '%s\\n' "\${COMPREPLY[@]}"; true`;
  // readline cuts words at : and =
  const cut = words.flatMap((word) => word.split(/([:=])/).filter((part) => part !== ''));
  if (words.at(-1) === '') cut.push('');
  const { stdout, stderr, status } = spawnSync('bash', ['--norc', '-c', script, 'bash', ...cut], {
    cwd: dir,
    encoding: 'utf8',
    env: { ...process.env, VIOCTL_SYSROOT: tree.dir },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout.split('\n').filter(Boolean).sort();
}

/** The words that fish offers behind a line, files of the working directory included. */
function fish(line: string): string[] {
  const script = `source '${completions}/vioctl.fish'; complete -C ${JSON.stringify(line)}`;
  const { stdout, stderr, status } = spawnSync('fish', ['--no-config', '-c', script], {
    cwd: dir,
    encoding: 'utf8',
    env: { ...process.env, VIOCTL_SYSROOT: tree.dir, HOME: dir, XDG_CONFIG_HOME: dir, XDG_DATA_HOME: dir },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((offer) => offer.split('\t')[0]!)
    .sort();
}

const has = (...wanted: string[]) => expect.arrayContaining(wanted);

/** Runs the test where the shell is installed; says so where it is not. */
const inShell = (shell: string, name: string, work: () => void) =>
  test(name, () => (which(shell) ? work() : skip(`completion: ${name}`, `${shell} is not installed`)));

describe('bash', () => {
  test('words of a command come one by one', () => {
    expect(bash('vioctl', 'vf')).toEqual(['vfio']);
    expect(bash('vioctl', 'vhost-user', 'shmem', '')).toEqual(['list', 'map', 'serve', 'unmap', 'window']);
    expect(bash('vioctl', 'vhost-user', '')).not.toEqual(has('map'));
    expect(bash('vioctl', 'help', 'vhost-user', 'shmem', 'se')).toEqual(['serve']);
    expect(bash('vioctl', 'completion', '')).toEqual(['bash', 'fish', 'zsh']);
    expect(bash('vioctl', 'nosuch', '')).toEqual([]);
  });
  test('options are those of the command, values those of the option', () => {
    expect(bash('vioctl', 'uring', 'sum', '--eng')).toEqual(['--engine']);
    expect(bash('vioctl', 'uring', 'list', '--alg')).toEqual([]);
    expect(bash('vioctl', 'uring', 'sum', '--engine', '')).toEqual(['auto', 'sync', 'uring']);
    expect(bash('vioctl', 'uring', 'sum', '--engine=s')).toEqual(['sync']);
    expect(bash('vioctl', 'uring', 'sum', '-a', 'blake3')).toEqual(['blake3']);
    expect(bash('vioctl', 'uring', 'sum', '--depth', '')).toEqual([]);
    expect(bash('vioctl', 'uring', 'sum', 'list', '--t')).toEqual(['--tag']);
  });
  test('names stay whole, those behind -- are no options', () => {
    expect(bash('vioctl', 'migration', 'verify', 'my')).toEqual(['my file.mig', 'my other.mig']);
    expect(bash('vioctl', 'migration', 'verify', 'it')).toEqual(["it's.mig"]);
    expect(bash('vioctl', 'uring', 'cat', '--', '--')).toEqual([]);
    expect(bash('vioctl', 'uring', 'cat', '--', 'pl')).toEqual(['plain.mig']);
  });
  test('sockets and folders where a socket is meant, PCI addresses where a device is', () => {
    expect(bash('vioctl', 'vhost-user', 'probe', '')).toEqual(['a dir', 'the.sock']);
    expect(bash('vioctl', 'vfio', 'show', '')).toEqual(['0000:01:00.0', '0000:01:00.1']);
    // bash replaces what follows the last colon
    expect(bash('vioctl', 'vfio', 'show', '0000:01:00.')).toEqual(['00.0', '00.1']);
  });
});

describe('fish', () => {
  inShell('fish', 'fish: words, options and values', () => {
    expect(fish('vioctl vf')).toEqual(['vfio']);
    expect(fish('vioctl vhost-user shmem ')).toEqual(['list', 'map', 'serve', 'unmap', 'window']);
    expect(fish('vioctl vfio list ')).not.toEqual(has('bind'));
    expect(fish('vioctl uring sum --engine ')).toEqual(['auto', 'sync', 'uring']);
    expect(fish('vioctl uring sum list --ta')).toEqual(['--tag']);
    expect(fish('vioctl uring list --algo')).toEqual([]);
    expect(fish('vioctl uring cat -- --')).toEqual([]);
    expect(fish('vioctl completion ')).toEqual(['bash', 'fish', 'zsh']);
  });
  inShell('fish', 'fish: names whole, sockets, devices', () => {
    expect(fish('vioctl migration verify my')).toEqual(['my file.mig', 'my other.mig']);
    expect(fish('vioctl vhost-user probe ')).toEqual(has('the.sock'));
    expect(fish('vioctl vfio show ')).toEqual(has('0000:01:00.0', '0000:01:00.1'));
  });
});

inShell('zsh', 'zsh completes words, options, values and names', () => {
  const lines = {
    'nvmf se': 'nvmf|serve',
    'vhost-user shmem se': 'vhost-user|shmem|serve',
    'help vhost-user shmem wi': 'help|vhost-user|shmem|window',
    'uring sum --algo': 'uring|sum|--algorithm',
    'uring sum --engine sy': 'uring|sum|--engine|sync',
    'uring sum -a blake3': 'uring|sum|-a|blake3',
    'migration verify my\\ f': 'migration|verify|my file.mig',
    'uring cat -- pl': 'uring|cat|--|plain.mig',
    'vhost-user probe th': 'vhost-user|probe|the.sock',
    'vfio show 0000:01:00.1': 'vfio|show|0000:01:00.1',
    mig: 'migration',
  };
  const { stdout, stderr, status } = spawnSync(
    'timeout',
    ['25', 'zsh', '-f', path.join(root, 'test/support/programs/complete.zsh'), completions, Object.keys(lines).join('\n'), dir],
    { encoding: 'utf8', env: { PATH: process.env.PATH!, VIOCTL_SYSROOT: tree.dir, HOME: dir, TERM: 'dumb', LC_ALL: 'C.UTF-8' } },
  );
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  expect(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.replace(/\|$/, '')),
  ).toEqual(Object.values(lines));
});

test.each([
  ['bash', 'vioctl.bash'],
  ['zsh', '_vioctl'],
  ['fish', 'vioctl.fish'],
])('vioctl completion %s prints the shipped file', (shell, file) => {
  expect(vioctl(['completion', shell])).toMatchObject({
    status: 0,
    stderr: '',
    stdout: fs.readFileSync(path.join(completions, file), 'utf8'),
  });
});

test.each([[[]], [['ksh']], [['bash', 'zsh']]])('vioctl completion %j is wrong usage', (words) => {
  const { status, stdout, stderr } = vioctl(['completion', ...words]);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain('bash, zsh or fish');
});

inShell('shellcheck', 'shellcheck has nothing to say of the bash file', () => {
  expect(spawnSync('shellcheck', [path.join(completions, 'vioctl.bash')], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '' });
});

inShell('shellcheck', 'shellcheck has no warning about any other script', () => {
  const root = path.resolve(completions, '..');
  const scripts = ['.ci', 'systemd', 'vhost-user', 'test']
    .flatMap((folder) =>
      fs.readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => path.join(root, folder, name)),
    )
    .filter((file) => fs.statSync(file).isFile() && /^#!.*\b(ba|da)?sh\b/.test(fs.readFileSync(file, 'latin1').slice(0, 80)));
  expect(scripts.map((file) => path.relative(root, file))).toEqual(
    expect.arrayContaining(['.ci/run', 'systemd/initramfs-hook-vioctl-vfio']),
  );
  expect(spawnSync('shellcheck', ['-S', 'warning', ...scripts], { encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '' });
});
