#!/bin/sh
# In a lab guest: the nvme group of blktests against `vioctl nvmf serve`. run.sh FOLDER-OF-BLKTESTS PROGRAM [TEST...]
# PROGRAM is nvmet.ts; PEER and TLSHD are folders with nvme-cli and tlshd for TLS.
set -eu
blktests=$1 program=$2
shift 2
R=/run/nvmet
root=$PWD
export VIOCTL_ADDON=$R/vioctl/vioctl.node TMPDIR=/tmp/blktests
mkdir -p $R/bin $R/fs $R/vioctl $TMPDIR /run/blktests
# copies: the checkout may be built again meanwhile
cp -r bin dist package.json build/native/release/vioctl.node $R/vioctl
cp -r "$blktests/." /run/blktests
cat test/support/blktests/rc.sh >>/run/blktests/tests/nvme/rc
for module in configfs fuse loop nvme-tcp nvmet-tcp tls; do modprobe $module; done
# the kernel cannot load them itself: its modprobe is looked for in the initramfs
for module in gcm ctr ghash-generic aesni-intel dh_generic crc32c_generic; do modprobe -q $module || true; done
mount -t configfs none /sys/kernel/config
mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug
# options of the kernel's host as it is, and those of its target, which is ours here
mkdir -p /boot
{
  echo CONFIG_NVME_TARGET_AUTH=y; echo CONFIG_NVME_TARGET_TCP_TLS=y; echo CONFIG_NVME_TARGET_DEBUGFS=y; echo CONFIG_DEBUG_ATOMIC_SLEEP=y
  ! grep -q dhchap_secret /dev/nvme-fabrics || echo CONFIG_NVME_AUTH=m
  ! grep -q '\<tls\>' /dev/nvme-fabrics || echo CONFIG_NVME_TCP_TLS=y
} >"/boot/config-$(uname -r)"

# nvme-cli of this machine knows no TLS; no systemd runs here, which would start tlshd
wrap() { printf '#!/bin/sh\n%s\n' "$2" >"$R/bin/$1"; chmod 755 "$R/bin/$1"; }
wrap nvme-tls "exec sh $root/test/peers/enter.sh $PEER -- nvme \"\$@\""
wrap tlshd "exec sh $root/test/peers/enter.sh $TLSHD -- tlshd \"\$@\""
wrap udevadm 'exit 0' # no udev runs here either: devtmpfs has the nodes at once
wrap systemctl "exec sh $root/test/support/blktests/systemctl.sh \"\$@\""
printf '[debug]\nloglevel=1\n[authenticate]\nkeyrings=.nvme\n' >/tmp/tlshd.conf
export PATH="$R/bin:$PATH"

node $R/vioctl/bin/run.js nvmf serve --config test/support/blktests/nothing.json --control $R/ctl >$R/serve.log 2>&1 &
serve=$!
n=0
until [ -S $R/ctl ]; do n=$((n + 1)); [ $n -lt 600 ] || { cat $R/serve.log; exit 1; }; sleep 0.1; done
node "$program" $R $R/ctl >$R/nvmet.log 2>&1 &
until grep -qx ready $R/nvmet.log; do n=$((n + 1)); [ $n -lt 1200 ] || { cat $R/nvmet.log; exit 1; }; sleep 0.1; done

cd /run/blktests
status=0
export NVMET_TRTYPES=tcp NVME_IMG_SIZE=32M
./check "$@" || status=$?
find results '(' -name '*.out.bad' -o -name '*.dmesg' ')' -exec tail -v -n 40 '{}' +
tail -v -n 200 $R/serve.log $R/nvmet.log
kill $serve || true
ended=0
wait $serve || ended=$?
echo "== target ended with $ended"
exit $status
