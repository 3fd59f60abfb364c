import fs from 'node:fs';
import path from 'node:path';

import { allGenerated } from '../../scripts/generated.js';

import { allFlags } from '../../src/cli/command.js';
import { allCommands } from '../../src/cli/help/man.js';
import { groups } from '../../src/groups/index.js';
import { program, vioctl } from '../support/cli.js';

const root = path.resolve(program, '..', '..');
const files = fs
  .readdirSync(path.join(root, 'src/commands'), { recursive: true })
  .map(String)
  .filter((f) => f.endsWith('.ts'));

describe('every command keeps the contract', () => {
  test('files and command table agree', () => {
    const table = Object.entries(groups).flatMap(([group, { verbs }]) =>
      Object.keys(verbs).map((verb) => `${group}/${verb.replaceAll(' ', '/')}.ts`),
    );
    expect(files.sort()).toEqual(table.sort());
  });

  test('commands are thin', () => {
    const long = files.filter((f) => fs.readFileSync(path.join(root, 'src/commands', f), 'utf8').split('\n').length > 110);
    expect(long).toEqual([]);
  });

  test('summaries, examples, flags, formats', async () => {
    const faults: string[] = [];
    for (const { doc, command } of await allCommands()) {
      const fault = (text: string) => faults.push(`${doc.id}: ${text}`);
      if (!/^[a-z].*[^.]$/.test(doc.summary) || doc.summary.length > 80)
        fault(`summary is one lower-case line without full stop: "${doc.summary}"`);
      if (doc.paragraphs.length === 0) fault('no description');
      if (doc.examples.length === 0) fault('no example');
      for (const [line] of doc.examples) if (!line.includes(`vioctl ${doc.id}`)) fault(`example does not show the command: ${line}`);
      const flags = allFlags(command);
      for (const [name, flag] of Object.entries(flags)) {
        if (!flag.hidden && !flag.summary) fault(`--${name} has no summary`);
        if (!/^[a-zA-Z0-9][a-z0-9-]*$/.test(name)) fault(`--${name} is not lower-case with hyphens`);
      }
      for (const [name, arg] of Object.entries(command.args)) if (!arg.description) fault(`argument ${name} has no description`);
      const chars = Object.values(flags).flatMap((flag) => flag.char ?? []);
      if (new Set(chars).size !== chars.length) fault('a short flag is used twice');
      for (const { label, text } of doc.flags)
        if (/repeat.*\(may be repeated\)/.test(text) || (/ (TIME|SIZE)$/.test(label) && /\[default: \d{4,}\]/.test(text)))
          fault(`${label}: says it twice or without its unit: ${text}`);
      const { engine } = flags as Record<string, { options?: readonly string[] }>;
      if (engine && engine.options?.join() !== 'auto,uring,sync') fault('--engine does not take auto, uring and sync');
      if (command.changes && !('dry-run' in flags)) fault('changes the system but has no --dry-run');
      if (!command.changes && 'dry-run' in flags) fault('has --dry-run but is not marked as changing the system');
    }
    expect(faults).toEqual([]);
  });

  test('man pages, completions, README, schemas and C++ enumerations are up to date (npm run gen)', async () => {
    const stale = [];
    for (const [file, text] of await allGenerated()) {
      const at = path.join(root, file);
      if (!fs.existsSync(at) || fs.readFileSync(at, 'utf8') !== text) stale.push(file);
    }
    expect(stale).toEqual([]);
  });
});

describe('the program', () => {
  test('--help of everything is on stdout with status 0 and nothing on stderr', async () => {
    for (const args of [['--help'], ...Object.keys(groups).map((g) => [g, '-h'])]) {
      expect(vioctl(args)).toMatchObject({ status: 0, stderr: '' });
    }
  });

  test('what the parser refuses is one line that names the flag and says why', () => {
    const refused = (...args: string[]) => {
      const { status, stdout, stderr } = vioctl(args);
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      return stderr.split('\n')[0];
    };
    expect(refused('vfio', 'list', '--group', 'x')).toBe('vioctl: vfio list: --group: not a whole number: "x"');
    expect(refused('vfio', 'restore', '--wait', '5x')).toBe('vioctl: vfio restore: --wait: not a duration: "5x"');
    expect(refused('nvmf', 'ping')).toBe('vioctl: nvmf ping: missing option: --nqn');
    expect(refused('nvmf', 'proxy')).toBe('vioctl: nvmf proxy: missing options: --listen, --to');
    expect(refused('uring', 'sync', '-f', '-d')).toBe('vioctl: uring sync: --data and --filesystem exclude each other');
    expect(refused('dma', 'unmap')).toBe('vioctl: dma unmap: missing arguments: SOCKET, NAME');
    expect(refused('vfio', '--jsno')).toBe('vioctl: no such option: "--jsno"');
    expect(refused('vfio', 'list', '--json', '--ndjson')).toContain('--json and --ndjson exclude each other');
  });

  test('an unknown flag of each command is status 2, one line and a hint; under --json one JSON object', async () => {
    for (const { doc, command } of await allCommands()) {
      const words = doc.id.split(' ');
      const plain = vioctl([...words, '--no-such-flag']);
      expect({ id: doc.id, status: plain.status, stdout: plain.stdout }).toEqual({ id: doc.id, status: 2, stdout: '' });
      expect(plain.stderr.trimEnd().split('\n').length).toBeLessThanOrEqual(2);
      if (!command.formats.includes('json')) continue;
      const json = vioctl([...words, '--no-such-flag', '--json']);
      expect(json).toMatchObject({ status: 2, stdout: '' });
      expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'USAGE' } });
      expect(json.stderr.length).toBeLessThan(2048);
    }
  });
});
