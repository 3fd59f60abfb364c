#!/bin/sh
# enter.sh PEER [DIR...] -- PROGRAM [ARGUMENT...]
# Runs a program of a peer folder (peers.ts) in a root made for it alone: the peer's /usr, /etc and /var, this machine's
# /proc, /sys, /dev, /tmp and the DIRs, all at their own paths, and this machine's whole root at /host. Needs root, or user namespaces. Keeps its pid: killing it
# kills the program, and the death of whoever started it does too.
set -eu
if [ "${VIOCTL_PEER_STAGE:-}" = "" ]; then
  export VIOCTL_PEER_STAGE=1
  user=
  [ "$(id -u)" = 0 ] || user='--user --map-root-user'
  # shellcheck disable=SC2086
  exec unshare $user --mount --propagation private -- setpriv --pdeathsig KILL /bin/sh "$0" "$@"
fi
unset VIOCTL_PEER_STAGE
peer=$1
root=$peer/root
shift
mount -t tmpfs -o mode=755 peer "$root"
mkdir "$root/host"
mount --rbind / "$root/host"
for d in usr etc var; do
  mkdir "$root/$d"
  mount --bind "$peer/$d" "$root/$d"
done
for l in bin sbin lib lib64; do ln -s "usr/$l" "$root/$l"; done
mkdir "$root/root" "$root/run"
for d in /proc /sys /dev /tmp; do
  mkdir "$root$d"
  mount --rbind "$d" "$root$d"
done
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
  shift
done
shift
export PATH=/usr/libexec:/usr/sbin:/usr/bin LANG=C.UTF-8 HOME=/root
exec chroot "$root" "$@"
