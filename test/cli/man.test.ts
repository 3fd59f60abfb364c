import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { program } from '../support/cli.js';
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
