/**
 * A small Debian with a real systemd, D-Bus and udev: Linux as a host of our unit stays connected over a restart, and nvme-stas (stafd,
 * stacd) connects by itself and follows the discovery log.
 */
import { peer } from '../peers/peers.js';
import { boot } from './lab.js';

const script = String.raw`
set -eu
R=/run/root LOG=/run/systemd.log
fail() { echo "FAILED: $*"; grep -v 'bus\|cgroup' $LOG | tail -60; cat $R/run/st*.log 2>/dev/null | tail -20; dmesg | tail -15; exit 1; }
# patient: an emulated machine beside other work
until_true() { n=0; until eval "$1" >/run/out 2>&1; do n=$((n+1)); [ $n -lt 600 ] || { cat /run/out; fail "never: $1"; }; sleep 0.2; done; }
modprobe nvme-tcp
mkdir -p /run/upper $R; mount -t tmpfs t /run/upper; mkdir /run/upper/u /run/upper/w
mount -t overlay -o "lowerdir=$PEER,upperdir=/run/upper/u,workdir=/run/upper/w" o $R
mods=$R/usr/lib/modules/$(uname -r)
mkdir -p $R/opt/checkout $R/srv $R/etc/vioctl $R/etc/stas $R/etc/nvme $R/etc/systemd/system $mods
mount --rbind /dev $R/dev; mount --rbind /sys $R/sys; mount --bind "$LAB_CWD" $R/opt/checkout
mount --bind "$(readlink -f /lib/modules/$(uname -r))" $mods
cp "$(readlink -f "$(command -v node)")" $R/opt/node
printf '#!/bin/sh\nexec /opt/node /opt/checkout/bin/run.js "$@"\n' >$R/usr/bin/vioctl; chmod 755 $R/usr/bin/vioctl $R/opt/node
U=$R/etc/systemd/system
cp systemd/vioctl-nvmf.service systemd/vioctl-nvmf.socket $U/
truncate -s 16M $R/srv/disk.img
echo 6ba7b8109dad11d180b400c04fd430c8 >$R/etc/machine-id
echo nqn.2014-08.org.nvmexpress:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8 >$R/etc/nvme/hostnqn
echo 6ba7b810-9dad-11d1-80b4-00c04fd430c8 >$R/etc/nvme/hostid
config() { printf '{ "listen": [%s], "subsystems": [ { "nqn": "%s", "namespaces": [ { "source": "/srv/disk.img" }%s ] } ] }' "$1" "$NQN" "$2" >$R/etc/vioctl/nvmf.json; }
config '"127.0.0.1:4420"' ''
printf '[Unit]\nRequires=dbus.socket systemd-udevd.service\nAfter=dbus.socket systemd-udevd.service\n' >$U/lab.target
# nothing here needs a network manager, a journal or a login
for u in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket systemd-logind.service network-online.target systemd-tpm2-setup.service systemd-tpm2-setup-early.service; do
  ln -sf /dev/null $U/$u
done
chroot $R systemd-sysusers 2>/run/out || { cat /run/out; fail sysusers; }
for d in stafd stacd; do
  mkdir $U/$d.service.d
  printf '[Service]\nExecStart=\nExecStart=/usr/bin/python3 -u /usr/sbin/%s\nStandardOutput=file:/run/%s.log\nStandardError=file:/run/%s.log\n' $d $d $d >$U/$d.service.d/lab.conf
done
cat >/run/container <<'BOOT'
# systemd writes its log to /dev/console, which must be a terminal
mount -t tmpfs t $R/run && mount -t proc p $R/proc && touch $R/dev/console && mount --bind "$(tty)" $R/dev/console || exit 1
exec chroot $R /usr/lib/systemd/systemd --system --unit=lab.target --log-level=debug --log-target=console --log-color=no --show-status=no
BOOT
export R container=lab
setsid script -qfc 'unshare --pid --fork --kill-child --mount --propagation private sh /run/container' $LOG >/dev/null 2>&1 </dev/null &
until_true 'grep -q "lab.target: Job [0-9]* lab.target/start finished, result=done" $LOG'
# its PID namespace is another one
PID1=$(pgrep -f '^/usr/lib/systemd/systemd --system --unit=lab.target' | tail -1)
S() { nsenter -t $PID1 -m -p -r -w -- "$@"; }
ctl() { S systemctl --no-pager "$@"; }
show() { ctl show vioctl-nvmf -P "$1"; }
told() { grep -c "vioctl-nvmf.service: Got notification message from PID.*$1" $LOG || true; }
host() { cat /sys/class/nvme/nvme*/state; }
listening() { S ss -Htlne 'sport = 4420' | grep -o 'ino:[0-9]*'; }
echo STEP systemd

ctl start vioctl-nvmf || { ctl status vioctl-nvmf || true; fail start; }
[ "$(show ActiveState)" = active ] || fail "state $(show ActiveState)"
[ "$(show Type)" = notify ] || fail type
echo "STATUS $(show StatusText)"
[ "$(show NFileDescriptorStore)" -ge 1 ] || fail "no descriptor is stored"
echo STEP active

# a restart that takes a while: whoever connects meanwhile waits
mkdir $U/vioctl-nvmf.service.d
printf '[Service]\nExecStartPre=/bin/sleep 5\nWatchdogSec=20\n' >$U/vioctl-nvmf.service.d/lab.conf
ctl daemon-reload
S nvme connect -t tcp -a 127.0.0.1 -s 4420 -n $NQN -i 1 -c 1 -l 300 -k 5 >/dev/null
until_true '[ -b /dev/nvme0n1 ]'
D=/dev/nvme0n1
same() { timeout 100 dd if=$D iflag=direct bs=4096 count=16 status=none | cmp - /run/x || fail "$1"; }
head -c 65536 /dev/urandom >/run/x; dd if=/run/x of=$D oflag=direct bs=4096 status=none; same data
before=$(listening); dmesg -C
ctl restart vioctl-nvmf
[ "$(listening)" = "$before" ] || fail "another socket: $before, $(listening)"
same 'data after the restart'
until_true '[ "$(host)" = live ]'
if dmesg | grep -E 'failed to connect socket: -111'; then fail 'a connection was refused'; fi
echo STEP restart

S nvme disconnect -n $NQN >/dev/null
config '"127.0.0.1:4420"' ''
printf '[Global]\nkato=10\n[Service Discovery]\nzeroconf=disabled\n[Controllers]\ncontroller=transport=tcp;traddr=127.0.0.1;trsvcid=4420\n' >$R/etc/stas/stafd.conf
ctl start stafd stacd || fail 'stafd, stacd'
names() { cat /sys/class/nvme/nvme*/subsysnqn; }
until_true 'names | grep -qx $NQN'
echo STEP stas connects
S vioctl nvmf ctl /run/vioctl/nvmf.sock add ram:2M --nqn $NQN.second
until_true 'names | grep -qx $NQN.second'
echo STEP stas follows an addition
S vioctl nvmf ctl /run/vioctl/nvmf.sock remove --nqn $NQN.second
until_true '! names | grep -qx $NQN.second'
names | grep -qx $NQN || fail 'the other subsystem went too'
echo STEP stas follows a removal
ctl stop stacd stafd vioctl-nvmf
`;

test('Linux over a restart of the unit, and nvme-stas, which follows what is served', async () => {
  const { dir } = await peer('stas');
  const result = await boot({
    kernel: '6.12',
    cmd: script,
    env: { PEER: dir, NQN: 'nqn.2014-08.org.example:unit' },
    memory: 1536,
    timeout: 500,
  });
  if (result.stdout.includes('FAILED') || result.status !== 0) console.log(result.stdout.slice(-8000), result.stderr.slice(-2000));
  expect(result.stdout).not.toContain('FAILED');
  expect(result.status).toBe(0);
}, 600_000);
