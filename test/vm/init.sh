#!/bin/sh
# PID 1 of a lab guest (busybox ash in the initramfs). Builds a root from the host's, read-only over 9p, below a tmpfs
# overlay; runs the job in it; reports through virtio ports: out, err (the job's), ctl ("up", "exit N").
# /job holds: cmd (shell script), env (sh assignments), files/ (copied over the root), flags; with /job/wait instead, the
# machine is saved here, and whoever restores it sends the rest as an archive through the port "job".
export PATH=/bin
mount -t devtmpfs d /dev
mount -t proc p /proc
mount -t sysfs s /sys
while read -r m; do insmod "/mods/$m" || echo "lab: insmod $m failed" >/dev/kmsg; done </mods/order

# ports are announced by the device after the driver has bound
n=0
while [ ! -e /job/port.ctl ] || [ ! -e /job/port.err ] || [ ! -e /job/port.out ]; do
  for p in /sys/class/virtio-ports/vport*; do
    [ -r "$p/name" ] && read -r name <"$p/name" && [ -n "$name" ] && [ -c "/dev/${p##*/}" ] &&
      ln -sfn "/dev/${p##*/}" "/job/port.${name#lab.}"
  done
  n=$((n + 1))
  [ $n -lt 3000 ] || break
  usleep 20000
done

if [ -e /job/wait ]; then
  echo waiting >/job/port.ctl
  until (cd / && cpio -idu </job/port.job) 2>/dev/null && [ -e /job/cmd ]; do usleep 20000; done
fi
. /job/flags
# a restored machine has the time of its saving
date -u -s "@$NOW" >/dev/null

off() {
  # a file system whose server is gone would never sync
  sync &
  n=0
  while kill -0 $! 2>/dev/null && [ $n -lt 100 ]; do
    sleep 0.1
    n=$((n + 1))
  done
  # isa-debug-exit: QEMU ends at once with status (1 << 1) | 1
  printf '\001' | dd of=/dev/port bs=1 seek=244 conv=notrunc 2>/dev/null
  poweroff -f
}
fail() {
  echo "lab: $1" >/dev/kmsg
  echo "failed $1" >/job/port.ctl
  off
}

mkdir -p /ro /rw /root2
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose rootfs /ro || fail 'cannot mount the shared root'
mount -t tmpfs -o size=75% t /rw && mkdir /rw/u /rw/w
mount -t overlay -o lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w o /root2 || fail 'cannot mount the overlay'
cd /root2 || fail 'no root'
mount -t proc p proc
mount -t sysfs s sys
mount -t devtmpfs d dev
mkdir -p dev/shm dev/pts
mount -t tmpfs t dev/shm
mount -t devpts d dev/pts
ln -s /proc/self/fd dev/fd
for i in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${i%:*}" "dev/${i#*:}"; done
mount -t tmpfs t run
mkdir -p run/lab run/lock lib/modules
ln -sfn "$KERNEL_DIR/lib/modules/$(uname -r)" "lib/modules/$(uname -r)"
hostname lab
ip link set lo up
if [ -n "$SHARE" ]; then
  mkdir -p share
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none,access=client share share || fail 'cannot mount the share'
fi
# without -a: folders that are there keep their modes
[ ! -d /job/files ] || (umask 0; cp -r /job/files/. /root2/)
if [ -n "$NET" ]; then
  chroot /root2 /sbin/modprobe virtio_net || fail 'no virtio_net'
  for i in /sys/bus/virtio/drivers/virtio_net/*/net/*; do
    ip addr add 10.0.2.15/24 dev "${i##*/}"
    ip link set "${i##*/}" up
    ip route add default via 10.0.2.2
    break
  done
fi
cp /job/cmd /job/env run/lab/

mkfifo /job/out /job/err /job/in
cat </job/out >/job/port.out &
o=$!
cat </job/err >/job/port.err &
e=$!
cat </job/port.in >/job/in &
echo up >/job/port.ctl
chroot /root2 /bin/sh -c '. /run/lab/env; cd "$LAB_CWD" && exec /bin/sh /run/lab/cmd' </job/in >/job/out 2>/job/err
rc=$?
# a background process that still holds the output must not keep the guest up
(sleep 5; kill $o $e 2>/dev/null) &
wait $o $e
echo "exit $rc" >/job/port.ctl
off
