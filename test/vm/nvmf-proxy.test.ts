/** Linux as a host through `nvmf proxy` with faults, and the discovery port of a target that nvme-cli finds by itself. */
import { spawn } from 'node:child_process';
import { plainEnv, program } from '../support/cli.js';
import { serveTarget } from '../support/nvme-target.js';
import { boot, devices, KERNELS } from './lab.js';

const kernel = KERNELS.at(-1)!;
const script = `
set -e
fail() { dmesg | tail -15; echo "FAILED: $*"; exit 1; }
run() { timeout 90 "$@" >/run/out 2>&1 || { s=$?; cat /run/out; fail "status $s: $*"; }; }
until_true() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 300 ] || fail "never: $1"; sleep 0.1; done; }
device() { for d in /sys/block/nvme*n*; do case $(basename $d) in *c*) continue;; esac; [ "$(cat $d/nsid 2>/dev/null)" = "$1" ] && echo /dev/$(basename $d); done; true; }
present() { [ -n "$(device $1)" ] && [ -b "$(device $1)" ]; }
modprobe nvme-tcp
ip link set lo up

# everything that is written is there, although the proxy spoils some of it
run nvme connect -t tcp -a 10.0.2.2 -s $PROXY -n $NQN -i 1 -g -G -c 1
until_true 'present 1'
D=$(device 1)
head -c 8388608 /dev/urandom >/run/x
run dd if=/run/x of=$D bs=64k oflag=direct
run dd if=$D of=/run/y bs=64k count=128 iflag=direct
cmp /run/x /run/y || fail 'other data'
run nvme disconnect -n $NQN
echo STEP proxy

# a target of this machine: nvme-cli asks on port 8009 when no port is given
"$NODE" "$PROGRAM" nvmf serve ram:32M --nqn nqn.2014-08.org.example:here --listen 127.0.0.1:4420 >/run/serve 2>&1 & serve=$!
until_true 'grep -q "discovery on 127.0.0.1:8009" /run/serve'
run nvme discover -t tcp -a 127.0.0.1
grep -q 'trsvcid: *4420' /run/out && grep -q 'nqn.2014-08.org.example:here' /run/out || { cat /run/out; fail 'discovery log'; }
run nvme connect-all -t tcp -a 127.0.0.1
until_true 'present 1'
run dd if=/run/x of=$(device 1) bs=64k count=16 oflag=direct
run nvme disconnect-all
kill $serve; wait $serve || fail "serve ended with $?"
echo STEP discovery
`;

test(`Linux ${kernel} recovers from every fault, and discovers on port 8009`, async () => {
  const target = await serveTarget(['ram:64M', '--quiet']);
  const faults = [
    'status:2/81,command=read,qid=1,after=30,count=2',
    'ddgst,type=C2HData,command=read,qid=1,after=60,count=1',
    'ddgst,type=H2CData,qid=1,after=20,count=1',
    'hdgst,dir=c2h,qid=1,after=150,count=1',
    'delay:20ms,command=read,qid=1,every=40',
  ];
  const proxy = spawn(
    process.execPath,
    [
      program,
      ...['nvmf', 'proxy', '--listen', ':0', '--to', `127.0.0.1:${target.port}`, '--ndjson'],
      ...faults.flatMap((fault) => ['--fault', fault]),
    ],
    { env: plainEnv(), stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let text = '';
  proxy.stdout.on('data', (chunk: Buffer) => {
    text += chunk;
  });
  try {
    while (!text.includes('\n') && proxy.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 10));
    const { port } = JSON.parse(text.split('\n')[0]!) as { port: number };
    const result = await boot({
      kernel,
      cmd: script,
      devices: [devices.network()],
      env: { PROXY: String(port), NQN: target.nqn, NODE: process.execPath, PROGRAM: program },
      timeout: 240,
    });
    expect(result.stdout).toContain('STEP discovery');
    expect(result.status).toBe(0);
    const told = text
      .trim()
      .split('\n')
      .flatMap((line) => (JSON.parse(line) as { faults?: string[] }).faults ?? []);
    for (const fault of faults) expect(told).toContain(fault);
  } finally {
    proxy.kill('SIGTERM');
    await target.stop();
  }
}, 300_000);
