/**
 * TLS between us and Linux, whose handshakes tlshd does: its host with our target, our host with its target, and keys that rotate
 * while fio writes and verifies. The keys of Linux are derived by nvme-cli.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatChapKey, formatTlsKey } from '../../src/nvme/auth/keys.js';
import { peer } from '../peers/peers.js';
import { effort } from '../support/effort.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { devices, type KernelName, kernelsFor } from './lab.js';
import { GuestShell } from './shell.js';

const hostnqn = 'nqn.2014-08.org.example:lab-host';
const nqnOf = (name: string) => `nqn.2014-08.org.example:${name}`;
/** Debian's 6.1 has no TLS. */
const kernels: readonly KernelName[] = ['6.12', '7'];
/** Rotation is about our target, so one kernel is enough for it. */
const rotating = kernelsFor(['7'], kernels);
const hashes = { sha256: { hash: 1, size: 32 }, sha384: { hash: 2, size: 48 } } as const;
type Hash = keyof typeof hashes;
const newKey = (name: Hash) => formatTlsKey({ hash: hashes[name].hash, bytes: randomBytes(hashes[name].size) });
const newSecret = () => formatChapKey({ hash: 1, bytes: randomBytes(32) });
/** Rotations under fio; every other one by SIGHUP. */
const rotations = effort(2, 4);

const setUp = `
enter() { sh test/peers/enter.sh $PEER -- "$@"; }
printf '[debug]\\nloglevel=1\\n[authenticate]\\nkeyrings=.nvme\\n' >/tmp/tlshd.conf
modprobe nvme-tcp && modprobe nvmet-tcp && modprobe tls || return 1
# the kernel cannot load them itself: its modprobe is looked for in the initramfs
for m in gcm ctr ghash-generic aesni-intel; do modprobe -q $m; done
sh test/peers/enter.sh $TLSHD -- tlshd -s -c /tmp/tlshd.conf >/run/tlshd.log 2>&1 &
key() { enter nvme check-tls-key --hostnqn $HOSTNQN --subsysnqn $1 --keydata "$2" --identity $3 --insert; }
connect() { port=$1; nqn=$2; shift 2; timeout 100 sh test/peers/enter.sh $PEER -- nvme connect -t tcp -a 10.0.2.2 -s $port -n $nqn -q $HOSTNQN -I 5b4cd4f0-1f2e-4b1d-9a55-6f3c3d1f7a01 -i 1 -k 60 "$@"; }
disk() { n=0; while [ $n -lt 600 ]; do for d in /sys/block/nvme*n1; do D=/dev/\${d##*/}; [ ! -b $D ] || return 0; done; sleep 0.1; n=$((n+1)); done; return 1; }
gone() { n=0; while [ $n -lt 600 ]; do [ -e /dev/nvme0n1 ] || return 0; sleep 0.1; n=$((n+1)); done; return 1; }
data() { head -c 1M /dev/urandom >/run/x; dd if=/run/x of=$D bs=128k oflag=direct status=none && dd if=$D bs=128k count=8 iflag=direct status=none | cmp - /run/x; }
`;

const linuxTarget = `
mount -t configfs none /sys/kernel/config 2>/dev/null || [ -d /sys/kernel/config/nvmet ] || return 1
mkdir -p /mnt/t; mount -t tmpfs none /mnt/t; truncate -s 16M /mnt/t/1
N=/sys/kernel/config/nvmet; mkdir $N/ports/1
(cd $N/ports/1; echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo 0.0.0.0 >addr_traddr; echo 4420 >addr_trsvcid; echo tls1.3 >addr_tsas && echo required >addr_treq) || return 1
for s in $SUBSYSTEMS; do
  mkdir $N/subsystems/$s; echo 1 >$N/subsystems/$s/attr_allow_any_host
  mkdir $N/subsystems/$s/namespaces/1; echo 1 >$N/subsystems/$s/namespaces/1/buffered_io; printf /mnt/t/1 >$N/subsystems/$s/namespaces/1/device_path
  echo 1 >$N/subsystems/$s/namespaces/1/enable; ln -s $N/subsystems/$s $N/ports/1/subsystems/$s || return 1
done
`;

let dir: string;
const at = (name: string) => path.join(dir, name);
const write = (name: string, text: string) => fs.writeFileSync(at(name), `${text}\n`, { mode: 0o600 });
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-tls-'));
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

describe.each(kernels)('Linux %s', (kernel) => {
  const old = kernel === '6.12';
  // tlshd 1.0 has no binders of SHA-384
  const hashNames: Hash[] = old ? ['sha256'] : ['sha256', 'sha384'];
  let shell: GuestShell;
  const targets: ServedTarget[] = [];
  const keys = { sha256: newKey('sha256'), sha384: newKey('sha384') };
  beforeAll(async () => {
    for (const name of hashNames) write(name, keys[name]);
    shell = await GuestShell.boot({
      kernel,
      devices: [devices.network({ forward: [4420] })],
      env: {
        PEER: (await peer('nvme-tls')).dir,
        TLSHD: (await peer(old ? 'tlshd' : 'nvme-tls')).dir,
        HOSTNQN: hostnqn,
        SUBSYSTEMS: hashNames.map((name) => nqnOf(`linux-${name}`)).join(' '),
      },
      timeout: 600,
    });
    await shell.must(setUp);
  });
  afterAll(async () => {
    await shell?.end();
    for (const target of targets) expect(await target.stop()).toBe(0);
  });
  const serve = async (name: string, config: object) => {
    fs.writeFileSync(at(`${name}.json`), JSON.stringify({ listen: ['127.0.0.1:0'], ...config }));
    const target = await serveTarget(['--config', at(`${name}.json`), '--control', at(`${name}.ctl`)]);
    targets.push(target);
    return target;
  };

  test('its host and our target: hashes, versions of identities, data; wrong, missing and no key', async () => {
    for (const name of hashNames) {
      const nqns = [0, 1].map((version) => nqnOf(`${name}-v${version}`));
      const subsystems = [...nqns, nqnOf('wrong'), nqnOf('missing')].map((nqn) => ({ nqn, namespaces: [{ source: 'ram:4M' }] }));
      const { port } = await serve(`${kernel}-${name}`, { keys: [{ tlsKeyFile: name }], subsystems });
      for (const [version, nqn] of nqns.entries()) {
        await shell.must(`key ${nqn} ${keys[name]} ${version}`);
        await shell.must(`connect ${port} ${nqn} --tls && disk && data && nvme disconnect -n ${nqn} && gone`);
      }
      // another key makes the same identity of version 0, and another one of version 1
      for (const version of [0, 1]) {
        await shell.must(`key ${nqnOf('wrong')} ${newKey(name)} ${version}`);
        expect((await shell.run(`connect ${port} ${nqnOf('wrong')} --tls`)).status).not.toBe(0);
      }
      expect((await shell.run(`connect ${port} ${nqnOf('missing')} --tls`)).status).not.toBe(0);
      expect((await shell.run(`connect ${port} ${nqns[1]}`)).status).not.toBe(0);
      expect((await shell.run('[ -e /dev/nvme0n1 ]')).status).toBe(1);
    }
  });

  test('our host and its target: hashes, data; wrong and no key', async () => {
    await shell.must(linuxTarget);
    const data = randomBytes(1 << 20);
    for (const name of hashNames) {
      const nqn = nqnOf(`linux-${name}`);
      await shell.must(`key ${nqn} ${keys[name]} 1`);
      const host = ['-s', String(shell.guest.ports.get(4420)!), '-n', nqn, '-q', hostnqn, '--timeout', '100s'];
      const good = ['--tls', '--tls-key-file', at(name)];
      expect(await nvmf(['write', ...host, ...good], { input: data })).toMatchObject({ status: 0 });
      const read = await nvmf(['read', ...host, ...good, '--count', '1M']);
      expect(read.stdout.equals(data)).toBe(true);
      write('other', newKey(name));
      expect(await nvmf(['identify', ...host, '--tls-key-file', at('other')])).toMatchObject({ status: 6 });
      expect((await nvmf(['identify', ...host])).status).not.toBe(0);
    }
  });

  if (!rotating.includes(kernel)) return;
  test('keys rotate under fio verify: no error', async () => {
    const nqn = nqnOf('rotating');
    const renew = () => {
      const fresh = { tls: newKey('sha256'), chap: newSecret() };
      write('rotating-tls', fresh.tls);
      write('rotating-chap', fresh.chap);
      return fresh;
    };
    let now = renew();
    const name = `${kernel}-rotating`;
    const target = await serve(name, {
      keys: [{ host: hostnqn, tlsKeyFile: 'rotating-tls', dhchapSecretFile: 'rotating-chap' }],
      dhchapGroups: ['ffdhe2048'],
      subsystems: [{ nqn, namespaces: [{ source: 'ram:16M' }] }],
    });
    await shell.must(`key ${nqn} ${now.tls} 0 && connect ${target.port} ${nqn} --tls -S ${now.chap} && disk && data`);
    const told = (pattern: RegExp) => target.messages().match(pattern)?.length ?? 0;
    const until = async (pattern: RegExp, count: number) => {
      for (const end = Date.now() + 100_000; told(pattern) < count; await sleep(50))
        if (Date.now() > end) throw new Error(`fewer than ${count} of ${pattern}: ${target.messages()}`);
    };
    const authenticated = /is authenticated/g;
    const fio =
      'fio --name=v --filename=$D --direct=1 --rw=randwrite --bs=16k --size=8M --iodepth=8 --ioengine=libaio --verify=crc32c --verify_fatal=1';
    await shell.must(
      `rm -f /run/enough; (runs=0; while [ ! -e /run/enough ]; do ${fio} --randseed=$runs >/run/fio 2>&1 || break; runs=$((runs+1)); echo $runs >/run/runs; done; [ -e /run/enough ]) & FIO=$!`,
    );
    for (let i = 0; i < rotations; i++) {
      await shell.must(
        `r=$(cat /run/runs 2>/dev/null || echo 0); for i in $(seq 1000); do [ "$(cat /run/runs 2>/dev/null || echo 0)" -le $r ] || break; kill -0 $FIO || break; sleep 0.1; done`,
      );
      now = renew();
      const [keys, before] = [told(/keys? of/g), told(authenticated)];
      if (i % 2 === 0) expect(await nvmf(['ctl', at(`${name}.ctl`), 'keys', 'rotate'])).toMatchObject({ status: 0 });
      else {
        target.child.kill('SIGHUP');
        await until(/keys? of/g, keys + 1);
      }
      // the kernel proves the new secret at once, and uses the new TLS key when it connects again
      await shell.must(`key ${nqn} ${now.tls} 0; C=$(ls -d /sys/class/nvme/nvme* | head -1); printf %s ${now.chap} >$C/dhchap_secret`);
      await until(authenticated, before + 1);
      await shell.must('nvme reset /dev/$(basename $C)');
      await until(authenticated, before + 2);
    }
    const { status, output } = await shell.run(
      'touch /run/enough; wait $FIO; s=$?; cat /run/fio; echo "runs: $(cat /run/runs)"; dmesg | grep -i "i/o error"; [ $s = 0 ]',
    );
    expect({ status, output }).toEqual({ status: 0, output: expect.stringMatching(/runs: \d+\n$/) });
    await shell.must(`nvme disconnect -n ${nqn} && gone`);
  });
});
