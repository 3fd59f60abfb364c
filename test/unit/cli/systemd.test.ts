import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { notify } from '../../../src/cli/systemd.js';
import { skip, which } from '../../support/skip.js';

test('notify without a listener does nothing; an unreachable one is an error', () => {
  expect(() => notify({}, 'READY=1')).not.toThrow();
  expect(() => notify({ NOTIFY_SOCKET: '/nonexistent/notify' }, 'READY=1')).toThrow(
    expect.objectContaining({ code: 'ENOENT', syscall: 'sendto' }),
  );
});

test('one datagram reaches a socket, also an abstract one', async () => {
  const python = which('python3');
  if (!python) return skip('sd_notify datagram', 'python3 is missing');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-notify-'));
  for (const name of [path.join(dir, 'sock'), `@vioctl-test-${process.pid}`]) {
    const script = `import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1].replace('@','\\0',1))\nprint('bound',flush=True)\nprint(s.recv(100).decode(),flush=True)`;
    const child = spawn(python, ['-c', script, name], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (d) => (out += d));
    while (!out.includes('bound')) await new Promise((resolve) => setTimeout(resolve, 5));
    notify({ NOTIFY_SOCKET: name }, 'READY=1', 'STATUS=serving');
    await new Promise((resolve) => child.on('close', resolve));
    expect(out).toBe('bound\nREADY=1\nSTATUS=serving\n');
  }
  fs.rmSync(dir, { recursive: true });
});
