/**
 * The examples of documents: blocks marked ```console, whose lines behind `$` are run in order, in one scratch folder and one
 * network of its own for each document. Info words behind `console`: `server` starts the only command of a block in the
 * background and waits for the output that is shown; `sample` means that numbers are those of one machine.
 *
 * A paragraph `Needs: …` right before a block says what only other machines have; such a block is not run.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { program } from './cli.js';
import { PciTree } from './pci-tree.js';

export interface Example {
  /** Line of the document, from 1. */
  line: number;
  command: string;
  expected: string[];
  server: boolean;
  /** Numbers differ from machine to machine. */
  sample: boolean;
  /** What it needs that is not here; then it is not run. */
  needs: string | undefined;
}

/** All examples of a document, in order. */
export function examplesOf(text: string): Example[] {
  const lines = text.split('\n');
  const found: Example[] = [];
  for (let i = 0; i < lines.length; i++) {
    const fence = /^```console\b(.*)$/.exec(lines[i]!);
    if (!fence) continue;
    const server = fence[1]!.includes('server');
    const sample = fence[1]!.includes('sample');
    const before = lines.slice(0, i).findLast((line) => line.trim() !== '');
    const needs = /^Needs: (.*)$/.exec(before ?? '')?.[1];
    for (i++; lines[i] !== '```'; i++) {
      if (i >= lines.length) throw new Error('a console block does not end');
      const line = lines[i]!;
      const example = found.at(-1);
      if (line.startsWith('$ ')) found.push({ line: i + 1, command: line.slice(2), expected: [], server, sample, needs });
      else if (line.startsWith('> ') && example?.expected.length === 0) example.command += `\n${line.slice(2)}`;
      else if (example) example.expected.push(line);
      else throw new Error(`line ${i + 1}: output without a command`);
    }
  }
  return found;
}

/** What varies between two runs: `…` stands for anything on a line, alone for any lines; numbers with a point, and process ids. */
const pattern = (line: string): string =>
  line === '…'
    ? '(?:.*\\n)*'
    : `${line
        .trimEnd()
        .split('…')
        .map((part) =>
          part
            .replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
            .replace(/(?<![\d.])\d+\\\.\d+(?!\d|\\\.\d)/g, '\\d+\\.\\d+')
            .replace(/\bpid \d+/g, 'pid \\d+')
            .replace(/ {2,}/g, ' +')
            .replaceAll('/home/me', '[^ ]*'),
        )
        .join('.*')} *\\n`;

/** Any number and unit for each. */
const anyNumbers = (text: string): string => text.replace(/\d+(\.\d+)?[KMGT]?\b/g, '0').replace(/ +/g, ' ');

/** Whether output is what a document shows. Of a server, the lines that come first. */
export function asShown({ expected, server, sample }: Pick<Example, 'expected' | 'server' | 'sample'>, output: string): boolean {
  const lines = output.split('\n').map((line) => line.trimEnd());
  const came = server ? [...lines.slice(0, expected.length), ''] : lines;
  const settle = (all: readonly string[]) => (sample ? all.map(anyNumbers) : all);
  return new RegExp(`^${settle(expected).map(pattern).join('')}$`).test(settle(came).join('\n'));
}

/** What a command of a document did. */
export interface Outcome {
  example: Example;
  output: string;
  status: number;
}

/** A host with two NVMe controllers and a network card, for examples of vfio: no machine of a test has them. */
function sampleHost(): PciTree {
  const host = new PciTree();
  host.driver('nvme');
  host.driver('vfio-pci');
  host.device('0000:01:00.0', { vendor: 0x144d, device: 0xa808, class: 0x010802, driver: 'nvme', group: 14 });
  host.device('0000:02:00.0', { vendor: 0x144d, device: 0xa808, class: 0x010802, driver: 'nvme', group: 15 });
  host.igb('0000:03:00.0');
  return host;
}

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

/** Where examples run: the folder they start in, and the one for their outputs (N) and exit statuses (N.rc). */
export interface ExamplePlace {
  home: string;
  logs: string;
}

/** A bash script that runs examples one after another, and ends the servers that they started. */
export function exampleScript(examples: readonly Example[], { home, logs }: ExamplePlace): string {
  return [
    'set -m',
    'ip link set lo up',
    `vioctl() { ${quoted(process.execPath)} ${quoted(program)} "$@"; }`,
    'export -f vioctl',
    `cd ${quoted(home)}`,
    ...examples.flatMap(({ command, server, expected }, i) => {
      const log = quoted(path.join(logs, String(i)));
      const run = (first = '') => `{ ${first}${command}\n} >${log} 2>&1 </dev/null`;
      if (!server) return [`${run()}; echo $? >${log}.rc`];
      const printed = `[ "$(wc -l <${log})" -ge ${expected.length} ]`;
      // the shell around a server outlives the signal, so that the last \`wait\` waits for the server itself
      return [`${run('trap : TERM; ')} &`, `for _ in $(seq 600); do ${printed} && break; sleep 0.1; done; echo 0 >${log}.rc`];
    }),
    'for p in $(jobs -p); do kill -TERM -$p 2>/dev/null || kill -TERM $p; done; wait',
    '',
  ].join('\n');
}

/** Runs the examples of a document that need nothing special. */
export function runExamples(text: string, timeout = 120_000): Outcome[] {
  const examples = examplesOf(text).filter((example) => example.needs === undefined);
  if (examples.length === 0) return [];
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-examples-'));
  const host = text.includes('<!-- host: sample -->') ? sampleHost() : undefined;
  const logs = path.join(dir, '.logs');
  const home = path.join(dir, 'me');
  try {
    for (const made of [logs, home]) fs.mkdirSync(made);
    fs.writeFileSync(
      path.join(home, 'guest.mig'),
      gunzipSync(fs.readFileSync(path.resolve(__dirname, '../fixtures/migration/vfio-mtty.mig.gz'))),
    );
    fs.writeFileSync(path.join(dir, 'script'), exampleScript(examples, { home, logs }));
    const { error } = spawnSync('unshare', ['-rn', 'bash', path.join(dir, 'script')], {
      env: {
        PATH: process.env.PATH,
        HOME: home,
        TMPDIR: os.tmpdir(),
        LC_ALL: 'C.UTF-8',
        TERM: 'xterm',
        SHELL: '/bin/bash',
        ...(host && { VIOCTL_SYSROOT: host.dir }),
      },
      timeout,
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    return examples.map((example, i) => {
      const read = (name: string) => {
        const file = path.join(logs, name);
        return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
      };
      const status = read(`${i}.rc`);
      return { example, output: read(String(i)), status: status === '' ? (error ? 124 : 255) : Number(status) };
    });
  } finally {
    host?.remove();
    fs.rmSync(dir, { recursive: true, force: true });
  }
}
