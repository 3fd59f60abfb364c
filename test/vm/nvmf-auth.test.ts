/** DH-HMAC-CHAP between the kernel's host and our target, and between our host and the kernel's target. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatChapKey } from '../../src/nvme/auth/keys.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { devices, type GuestResult, type KernelName, kernelsFor, spawnGuest } from './lab.js';

const nqn = 'nqn.2014-08.org.example:locked';
const hostnqn = 'nqn.2014-08.org.example:lab-host';
/** Each hash function and each group at least once. */
const all = [
  ['sha256', 'null'],
  ['sha384', 'ffdhe2048'],
  ['sha512', 'ffdhe3072'],
  ['sha256', 'ffdhe4096'],
  ['sha384', 'ffdhe6144'],
  ['sha512', 'ffdhe8192'],
] as const;
/** Debian's 6.1 is built without authentication. */
const kernels: readonly KernelName[] = ['6.12', '7'];
/** The newest kernel gets all, 6.12 two: the code that both sides compute with is the same. */
const pairsOf = (kernel: KernelName) => (kernelsFor(['7'], kernels).includes(kernel) ? all : all.slice(0, 2));

/** Keys of each length, with and without a transformation. */
const secrets = {
  host: formatChapKey({ hash: 1, bytes: randomBytes(32) }),
  controller: formatChapKey({ hash: 3, bytes: randomBytes(64) }),
  plain: formatChapKey({ hash: 0, bytes: randomBytes(48) }),
};

let dir: string;
const file = (name: keyof typeof secrets) => path.join(dir, name);
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-auth-'));
  for (const name of Object.keys(secrets) as (keyof typeof secrets)[]) fs.writeFileSync(file(name), `${secrets[name]}\n`, { mode: 0o600 });
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

const linuxHost = `
set -e
fail() { dmesg | grep -i nvme | tail -20; echo "FAILED: $*"; exit 1; }
modprobe nvme-tcp
n=0
# a long keep-alive time: a starved guest must not lose its association for being slow
for port in $PORTS; do
  at="-t tcp -a 10.0.2.2 -s $port -n $NQN -q $HOSTNQN -i 1 -k 60"
  for keys in "-S $HOST" "-S $HOST -C $CONTROLLER"; do
    timeout 200 nvme connect $at $keys >/run/out 2>&1 || { cat /run/out; fail "connect to $port"; }
    D=; for i in $(seq 600); do for d in /sys/block/nvme*n1; do [ -b /dev/$(basename $d) ] && D=/dev/$(basename $d); done; [ -n "$D" ] && break; sleep 0.1; done
    [ -n "$D" ] || fail 'no disk'
    head -c 1M /dev/urandom >/run/x; dd if=/run/x of=$D bs=128k oflag=direct status=none
    dd if=$D bs=128k count=8 iflag=direct status=none | cmp - /run/x || fail 'what was written'
    C=$(ls -d /sys/class/nvme/nvme* | head -1)
    # authenticates again, under the same association
    if [ $n = 0 ]; then printf %s "$HOST" >$C/dhchap_secret || fail 'again'; echo AGAIN; read -r _; dd if=$D bs=128k count=8 iflag=direct status=none | cmp - /run/x || fail 'after authenticating again'; fi
    n=$((n+1))
    nvme disconnect -n $NQN >/dev/null
  done
  echo "PASSED $port"
done
for i in $(seq 600); do [ -e /dev/nvme0n1 ] || break; sleep 0.1; done
set -- $PORTS; at="-t tcp -a 10.0.2.2 -s $2 -n $NQN -q $HOSTNQN -i 1 -k 60"
for keys in "" "-S $PLAIN" "-S $HOST -C $PLAIN" "-S $CONTROLLER"; do
  if timeout 200 nvme connect $at $keys >/run/out 2>&1; then fail "connected with: $keys"; fi
  [ ! -e /dev/nvme0n1 ] || fail 'a disk without authentication'
  echo REFUSED
done
`;

describe.each(kernels)('a Linux %s host', (kernel) => {
  const pairs = pairsOf(kernel);
  const targets: ServedTarget[] = [];
  afterAll(async () => {
    for (const target of targets) expect(await target.stop()).toBe(0);
  });

  test('each hash and group; right, wrong and missing keys; both ways; again', async () => {
    for (const [hash, group] of pairs) {
      const config = path.join(dir, `${hash}-${group}.json`);
      const keys = [{ host: hostnqn, dhchapSecretFile: 'host', dhchapCtrlSecretFile: 'controller' }];
      const subsystems = [{ nqn, namespaces: [{ source: 'ram:16M' }] }];
      fs.writeFileSync(config, JSON.stringify({ listen: ['127.0.0.1:0'], keys, dhchapHashes: [hash], dhchapGroups: [group], subsystems }));
      targets.push(await serveTarget(['--config', config]));
    }
    const guest = await spawnGuest({
      kernel,
      cmd: linuxHost,
      devices: [devices.network()],
      env: {
        PORTS: targets.map(({ port }) => port).join(' '),
        NQN: nqn,
        HOSTNQN: hostnqn,
        HOST: secrets.host,
        CONTROLLER: secrets.controller,
        PLAIN: secrets.plain,
      },
      timeout: 600,
    });
    let result: GuestResult;
    try {
      const authentications = () => targets[0]!.messages().match(/is authenticated/g)?.length ?? 0;
      await guest.line(/^AGAIN$/, 300);
      // the kernel authenticates again in the background
      for (const until = Date.now() + 200_000; authentications() < 2 && Date.now() < until; ) await sleep(50);
      guest.write('go\n');
      result = await guest.wait();
    } finally {
      await guest.stop();
    }
    if (result.status !== 0) console.log(result.stdout, targets.map((target) => target.messages()).join('---\n'));
    expect(result.stdout.match(/^(PASSED|REFUSED)/gm)).toEqual([...pairs.map(() => 'PASSED'), ...Array(4).fill('REFUSED')]);
    expect(result.status).toBe(0);
    for (const [i, [hash, group]] of pairs.entries()) expect(targets[i]!.messages()).toContain(`is authenticated (${hash}, ${group}`);
    // the first association, which authenticated again, and the second
    expect(targets[0]!.messages().match(/is authenticated/g)!.length).toBeGreaterThanOrEqual(3);
    const said = targets.map((target) => target.messages()).join('');
    for (const secret of Object.values(secrets)) expect(said).not.toContain(secret.split(':')[2]!.slice(0, 12));
    console.log(`${kernel}: ${result.seconds} s`);
  });
});

const linuxTarget = `
  set -e
  modprobe nvmet; modprobe nvmet-tcp
  mount -t configfs none /sys/kernel/config 2>/dev/null || [ -d /sys/kernel/config/nvmet ]
  mkdir -p /mnt/t; mount -t tmpfs none /mnt/t; truncate -s 16M /mnt/t/1
  cd /sys/kernel/config/nvmet
  s=$PWD/subsystems/$NQN; h=$PWD/hosts/$HOSTNQN
  mkdir $s $h; ln -s $h $s/allowed_hosts/x
  mkdir $s/namespaces/1; echo 1 >$s/namespaces/1/buffered_io; printf /mnt/t/1 >$s/namespaces/1/device_path; echo 1 >$s/namespaces/1/enable
  mkdir ports/1; cd ports/1
  echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo 0.0.0.0 >addr_traddr; echo 4420 >addr_trsvcid
  ln -s $s subsystems/x
  printf %s "$HOST" >$h/dhchap_key; printf %s "$CONTROLLER" >$h/dhchap_ctrl_key
  echo ready
  while read -r hash group; do
    [ "$hash" != end ] || break
    echo "hmac($hash)" >$h/dhchap_hash; if [ $group = null ]; then echo null >$h/dhchap_dhgroup; else echo "$group" >$h/dhchap_dhgroup; fi
    echo "set $(cat $h/dhchap_hash) $(cat $h/dhchap_dhgroup)"
  done
`;

describe.each(kernels)('kernel %s as target', (kernel) => {
  const pairs = pairsOf(kernel);
  test('each hash and group; right, wrong and missing keys; both ways', async () => {
    const guest = await spawnGuest({
      kernel,
      cmd: linuxTarget,
      devices: [devices.network({ forward: [4420] })],
      env: { NQN: nqn, HOSTNQN: hostnqn, HOST: secrets.host, CONTROLLER: secrets.controller },
      timeout: 600,
    });
    try {
      await guest.line(/ready/);
      const base = ['-s', String(guest.ports.get(4420)!), '-n', nqn, '-q', hostnqn, '--timeout', '150s'];
      const good = ['--dhchap-secret-file', file('host')];
      const both = [...good, '--dhchap-ctrl-secret-file', file('controller')];
      const data = randomBytes(1 << 20);
      for (const [hash, group] of pairs) {
        guest.write(`${hash} ${group}\n`);
        await guest.line(new RegExp(`^set .*${hash}.* .*${group}`));
        for (const keys of [good, both]) {
          const written = await nvmf(['write', ...base, ...keys], { input: data });
          if (written.status !== 0) throw new Error(`${hash} ${group}: ${written.stderr}`);
        }
        const read = await nvmf(['read', ...base, ...good, '--count', '1M']);
        expect(read.stdout.equals(data)).toBe(true);
      }
      guest.write('sha256 ffdhe2048\n');
      await guest.line(/^set .*sha256.* .*ffdhe2048/);
      for (const keys of [[], ['--dhchap-secret-file', file('plain')], [...good, '--dhchap-ctrl-secret-file', file('plain')]]) {
        const { status, stderr } = await nvmf(['identify', ...base, ...keys]);
        expect(`${keys.length} arguments, status ${status}: ${stderr}`).toMatch(/ status 6: .*authentication/);
      }
      guest.write('end\n');
      guest.end();
      expect((await guest.wait()).status).toBe(0);
    } finally {
      await guest.stop();
    }
  });
});
