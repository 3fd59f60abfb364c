#!/bin/bash
# systemd.sh PEER CHECKOUT NODE: boots the small Debian in PEER below namespaces of its own (mounts, processes, network, control groups),
# with a real systemd as its first process, and runs the units of this checkout in it. Prints a line for each thing that it has seen.
# Nothing of it is left when this process ends, except for an empty control group, which whoever calls removes.
# shellcheck disable=SC2016 # what until_true waits for is expanded there
set -eu
if [ "${VIOCTL_SYSTEMD_STAGE:-}" = "" ]; then
  export VIOCTL_SYSTEMD_STAGE=1
  exec unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc -- bash "$0" "$@"
fi
if [ "$VIOCTL_SYSTEMD_STAGE" = 1 ]; then
  export VIOCTL_SYSTEMD_STAGE=2
  # systemd takes the root of the tree that it sees: it gets a group of its own as root
  mount -t tmpfs t /mnt && mkdir /mnt/cgroup && mount -t cgroup2 c /mnt/cgroup
  mkdir -p "/mnt/cgroup/$VIOCTL_SYSTEMD_GROUP"
  echo $$ >"/mnt/cgroup/$VIOCTL_SYSTEMD_GROUP/cgroup.procs"
  exec unshare --cgroup -- bash "$0" "$@"
fi
peer=$1 checkout=$2 node=$3
NQN=nqn.2014-08.org.example:unit
R=/run/root LOG=/run/systemd.log
ip link set lo up
mount -t tmpfs t /run
mkdir -p /run/upper/u /run/upper/w $R
mount -t overlay -o "lowerdir=$peer,upperdir=/run/upper/u,workdir=/run/upper/w" o $R
mount -t sysfs s $R/sys && mount -t cgroup2 c $R/sys/fs/cgroup
mount -t tmpfs d $R/dev
for n in null zero full random urandom tty; do touch $R/dev/$n && mount --bind /dev/$n $R/dev/$n; done
mkdir $R/dev/shm $R/dev/pts && mount --bind /dev/pts $R/dev/pts && touch $R/dev/console && ln -s /proc/self/fd $R/dev/fd
mkdir -p $R/opt/checkout $R/srv $R/etc/vioctl $R/etc/systemd/system
mount --bind "$checkout" $R/opt/checkout
cp "$node" $R/opt/node
printf '#!/bin/sh\nexec /opt/node /opt/checkout/bin/run.js "$@"\n' >$R/usr/bin/vioctl
chmod 755 $R/usr/bin/vioctl $R/opt/node
U=$R/etc/systemd/system
cp "$checkout"/systemd/vioctl-nvmf.service "$checkout"/systemd/vioctl-nvmf.socket $U/
truncate -s 16M $R/srv/disk.img
echo 6ba7b8109dad11d180b400c04fd430c8 >$R/etc/machine-id
printf '[Unit]\nDescription=the units under test\n' >$U/lab.target
# what would look for devices, keep a journal or wait for a network
for u in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service systemd-journald.service \
  systemd-journald.socket systemd-journald-dev-log.socket systemd-logind.service network-online.target systemd-tmpfiles-setup-dev.service \
  systemd-tmpfiles-setup-dev-early.service systemd-tpm2-setup.service systemd-tpm2-setup-early.service; do
  ln -sf /dev/null $U/$u
done
chroot $R systemd-sysusers >/dev/null 2>&1

fail() {
  echo "FAILED: $*"
  grep -a 'vioctl-nvmf' $LOG | grep -av 'Sent message\|Got message' | tail -60
  exit 1
}
# patient: the machine has other work
until_true() {
  local n
  for ((n = 0; n < 600; n++)); do
    if eval "$1" >/run/out 2>&1; then return; fi
    sleep 0.2
  done
  cat /run/out
  fail "never: $1"
}
config() {
  printf '{ "listen": [%s], "discoveryPort": "none", "subsystems": [ { "nqn": "%s", "namespaces": [ { "source": "/srv/disk.img" }%s ] } ] }' \
    "$1" "$NQN" "$2" >$R/etc/vioctl/nvmf.json
}

cat >/run/init <<'END'
# systemd writes its log to /dev/console, which must be a terminal
mount -t tmpfs t $R/run && mount -t proc p $R/proc && mount --bind "$(tty)" $R/dev/console || exit 1
exec chroot $R /usr/lib/systemd/systemd --system --unit=lab.target --log-level=debug --log-target=console --log-color=no --show-status=no
END
export R container=lab
setsid script -qfc 'unshare --pid --fork --kill-child --mount --propagation private sh /run/init' $LOG >/dev/null 2>&1 </dev/null &
until_true 'grep -aq "lab.target: Job [0-9]* lab.target/start finished, result=done" $LOG'
# its processes are in a namespace of theirs
init=$(pgrep -f '^/usr/lib/systemd/systemd --system --unit=lab.target' | tail -1)
inside() { nsenter -t "$init" -m -p -r -w -- "$@"; }
ctl() { inside systemctl --no-pager "$@"; }
show() { ctl show vioctl-nvmf -P "$1"; }
told() { grep -ac "vioctl-nvmf.service: Got notification message from PID.*$1" $LOG || true; }
listening() { inside ss -Htlne 'sport = 4420' | grep -o 'ino:[0-9]*'; }
discovers() { inside vioctl nvmf discover -a 127.0.0.1 -s 4420 --timeout 2m 2>&1 | grep "$NQN"; }

config '"127.0.0.1:4420"' ''
ctl start vioctl-nvmf || fail start
[ "$(show ActiveState)" = active ] || fail "state $(show ActiveState)"
[ "$(show NFileDescriptorStore)" = 1 ] || fail "stored: $(show NFileDescriptorStore)"
show StatusText | grep -q '^1 namespace in 1 subsystem' || fail "status: $(show StatusText)"
echo 'started: active, with a status, and a kept socket'

config '"127.0.0.1:4420"' ', { "source": "ram:1M" }'
ctl reload vioctl-nvmf
until_true '[ "$(told RELOADING=1)" -ge 1 ] && [ "$(show ActiveState)" = active ]'
grep -aq 'vioctl-nvmf.service: Changed running -> reload' $LOG || fail 'systemd saw no reload'
until_true 'show StatusText | grep "^2 namespaces"'
echo 'reloaded: a namespace more'
echo nonsense >$R/etc/vioctl/nvmf.json
ctl reload vioctl-nvmf || true
until_true '[ "$(told RELOADING=1)" -ge 2 ] && [ "$(show ActiveState)" = active ]'
[ "$(inside vioctl nvmf ctl /run/vioctl/nvmf.sock list 2>/dev/null | grep -c ram:)" = 1 ] || fail 'a wrong file changed the target'
[ "$(told 'STATUS=reload failed: /etc/vioctl/nvmf.json: not valid JSON')" -ge 1 ] || fail 'the status does not say why'
echo 'kept: a wrong file changes nothing'
config '"127.0.0.1:4420"' ''

# while the server is away its socket is not: who connects then waits for the next one
before=$(listening)
mkdir $U/vioctl-nvmf.service.d
printf '[Service]\nExecStartPre=/bin/sh -c "until [ -e /run/go ]; do sleep 0.1; done"\nWatchdogSec=15\n' >$U/vioctl-nvmf.service.d/test.conf
ctl daemon-reload
ctl restart --no-block vioctl-nvmf
until_true '[ "$(show SubState)" = start-pre ]'
discovers >/run/found &
host=$!
until_true 'inside ss -Htne "dport = 4420" | grep -q ESTAB'
inside touch /run/go
wait $host || fail 'a host was not served after the restart'
[ "$(listening)" = "$before" ] || fail "another socket: $before, $(listening)"
until_true '[ "$(show ActiveState)" = active ]'
echo 'restarted: the host that had connected meanwhile was served'

until_true '[ "$(told WATCHDOG=1)" -ge 3 ]'
kill -STOP "$(pgrep -f '^/opt/node /opt/checkout/bin/run.js nvmf serve' | tail -1)"
until_true '[ "$(show NRestarts)" -ge 1 ] && [ "$(show ActiveState)" = active ]'
grep -aq 'vioctl-nvmf.service: Watchdog timeout' $LOG || fail 'not by the watchdog'
discovers >/run/found || fail 'not served after the watchdog'
echo 'watchdog: a server that hung was replaced'

ctl stop vioctl-nvmf
rm $U/vioctl-nvmf.service.d/test.conf
config '' ''
ctl daemon-reload
ctl start vioctl-nvmf.socket
[ "$(show ActiveState)" = inactive ] || fail "before the first host: $(show ActiveState)"
discovers >/run/found || fail 'not served by activation'
[ "$(show ActiveState)" = active ] || fail 'not activated'
echo 'activated: by the first host'
ctl stop vioctl-nvmf.socket vioctl-nvmf
