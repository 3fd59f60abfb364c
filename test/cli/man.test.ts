import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { manuals } from '../../src/cli/help/manual.js';
import { groups } from '../../src/groups/index.js';
import { program, vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';

const man = path.resolve(program, '..', '..', 'man');

test('man pages have no fault that mandoc knows', () => {
  if (!which('mandoc')) return skip('man page lint', 'mandoc is missing');
  const pages = fs.readdirSync(man).map((name) => path.join(man, name));
  const lint = spawnSync('mandoc', ['-W', 'warning', '-T', 'lint', ...pages], { encoding: 'utf8' });
  // The root page leads, so that references to pages that are not installed here say nothing about them.
  expect(lint.stdout.split('\n').filter((line) => /WARNING|ERROR|UNSUPP/.test(line))).toEqual([]);
});

test('completions are valid shell and complete groups, verbs and flags', () => {
  const script = path.resolve(man, '..', 'completions', 'vioctl.bash');
  const complete = (...words: string[]) => {
    const code = `source ${script}; COMP_WORDS=(vioctl "$@"); COMP_CWORD=$#; _vioctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
    return spawnSync('bash', ['-c', code, 'bash', ...words], { encoding: 'utf8' })
      .stdout.trim()
      .split('\n');
  };
  expect(complete('vf')).toEqual(['vfio']);
  expect(complete('vfio', 'li')).toEqual(['list']);
  expect(complete('vfio', 'list', '--un')).toEqual(['--unused']);
  expect(complete('vhost-user', 'shmem', 'se')).toEqual(['serve']);
});

test('help --man shows the page of a command with man, and says what is wrong with the words', () => {
  const bin = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-man-'));
  try {
    fs.writeFileSync(path.join(bin, 'man'), '#!/bin/sh\necho "$1"; exit 7\n', { mode: 0o755 });
    const run = (...words: string[]) => vioctl(['help', '--man', ...words], { env: { PATH: `${bin}:${process.env.PATH}` } });
    expect(run('vhost-user', 'serve', 'blk')).toMatchObject({ status: 7, stdout: `${man}/vioctl-vhost-user-serve-blk.1\n`, stderr: '' });
    expect(run().stdout).toBe(`${man}/vioctl.1\n`);
    expect(run('vfio', 'bnd')).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining('did you mean "bind"') });
    expect(run('vfio')).toMatchObject({ status: 2, stderr: expect.stringContaining('takes a group and a verb') });
    fs.rmSync(path.join(bin, 'man'));
    const none = vioctl(['help', '--man', 'vfio', 'bind'], { env: { PATH: bin } });
    expect(none).toMatchObject({ status: 127, stderr: 'vioctl: man is not installed\nhint: vioctl vfio bind --help\n' });
  } finally {
    fs.rmSync(bin, { recursive: true });
  }
});

test('what a page has of its group is for verbs that exist', () => {
  for (const [group, { files, environment, notes }] of Object.entries(manuals)) {
    const verbs = [...files, ...environment].flatMap(([, , of]) => of ?? []);
    const all = [...verbs, ...notes.flatMap((note) => (typeof note === 'string' ? [] : note[1]))];
    expect(Object.keys(groups[group]!.verbs)).toEqual(expect.arrayContaining([...new Set(all)]));
  }
});

test('every page has its sections, and names its siblings', () => {
  for (const name of fs.readdirSync(man).filter((file) => /^vioctl-.*\.1$/.test(file))) {
    const text = fs.readFileSync(path.join(man, name), 'utf8');
    const sections = [...text.matchAll(/^\.SH (.*)$/gm)].map((match) => match[1]);
    expect({ name, sections }).toEqual({
      name,
      sections: expect.arrayContaining(['NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'ENVIRONMENT', 'EXIT STATUS', 'NOTES', 'SEE ALSO']),
    });
    const group = /^vioctl-(vfio|dma|uring|nvmf|vhost-user|migration)-/.exec(name)![1]!;
    const siblings = fs.readdirSync(man).filter((file) => file.startsWith(`vioctl-${group}-`) && file !== name);
    for (const sibling of siblings) expect(text).toContain(`.BR ${sibling.replace(/\.1$/, '').replaceAll('-', '\\-')} (1)`);
  }
});
