/** The units of the target as they are shipped, under a real systemd: what it is told, what it keeps, what it starts and ends. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { plainEnv } from '../support/cli.js';
import { peerForTest } from './peers.js';

const checkout = path.resolve(__dirname, '../..');
const minutes = 5;

test(
  'notifications, reload, watchdog, sockets that outlive a restart, activation',
  async () => {
    const peer = await peerForTest('systemd', 'our units under systemd');
    if (!peer) return;
    const group = `vioctl-systemd-${process.pid}`;
    const argv = [path.join(__dirname, 'systemd.sh'), peer.dir, checkout, fs.realpathSync(process.execPath)];
    const done = spawnSync('setpriv', ['--pdeathsig', 'KILL', 'bash', ...argv], {
      encoding: 'utf8',
      env: { ...plainEnv(), VIOCTL_SYSTEMD_GROUP: group },
      timeout: minutes * 60_000,
      killSignal: 'SIGKILL',
    });
    // the control groups that are left, the innermost first
    const clean = `m=$(mktemp -d) && mount -t cgroup2 c $m && find $m/${group} -depth -type d -exec rmdir {} +; umount $m; rmdir $m`;
    execFileSync('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', clean], { stdio: 'ignore' });
    expect({ status: done.status, lines: done.stdout.trimEnd().split('\n'), stderr: done.status === 0 ? '' : done.stderr }).toEqual({
      status: 0,
      stderr: '',
      lines: [
        'started: active, with a status, and a kept socket',
        'reloaded: a namespace more',
        'kept: a wrong file changes nothing',
        'restarted: the host that had connected meanwhile was served',
        'watchdog: a server that hung was replaced',
        'activated: by the first host',
      ],
    });
  },
  (minutes + 1) * 60_000,
);
