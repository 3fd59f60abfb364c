// A Node that is too old gets one line, whatever is asked of the program.
import { spawnSync } from 'node:child_process';
import { program } from '../support/cli.js';
import { mayFetchNode, npmNode } from '../support/npm-node.js';
import { skip } from '../support/skip.js';

test.each([16, 18])('Node %d', (major) => {
  if (!mayFetchNode) return skip(`Node ${major}`, 'nothing is fetched from npm outside of CI');
  const node = npmNode('x64', major);
  for (const words of [['vfio', 'list'], ['--version'], ['nvmf', 'serve', 'ram:16M', '--bogus'], []]) {
    const { status, stdout, stderr } = spawnSync(node, [program, ...words], { encoding: 'utf8' });
    expect({ status, stdout }).toEqual({ status: 7, stdout: '' });
    expect(stderr).toMatch(/^vioctl: needs Node 20\.19 or newer, this is v1[68]\.[\d.]+\n$/);
  }
});
