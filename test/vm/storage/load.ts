// A shell script's part for guests whose disks must not notice what happens behind them.

/**
 * Shell functions. `load NAME DIR` writes and verifies with fio in a folder until /run/stop appears or fio fails; `rounds NAME…` waits until
 * each has begun and ended a run after the call; `ask WORD` prints `ASK WORD` and waits for a line of the test.
 */
export const loadFunctions = String.raw`
set -e
fail() { dmesg | tail -30; cat /run/fio-* 2>/dev/null; echo "FAILED: $*"; exit 1; }
run() { timeout 90 "$@" >/run/out 2>&1 || { s=$?; cat /run/out; fail "status $s: $*"; }; }
ask() { echo "ASK $*"; read -r answer || fail 'no answer'; }
until_true() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 900 ] || fail "never: $1"; sleep 0.1; done; }
load() {
  : >>/run/rounds-$1
  while [ ! -e /run/stop ]; do
    fio --name=$1 --directory=$2 --rw=randwrite --bs=4k --size=2m --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64 --iodepth=8 \
      --ioengine=libaio --direct=1 >/run/fio-$1 2>&1 || { touch /run/bad-$1; return; }
    echo x >>/run/rounds-$1
  done
  touch /run/ended-$1
}
count() { cat /run/rounds-$1 2>/dev/null | wc -l; }
rounds() {
  for name; do eval "had_$name=$(count $name)"; done
  for name; do
    eval "had=\$had_$name"
    until_true "[ -e /run/bad-$name ] || [ \$(count $name) -ge $((had+2)) ]"
    [ ! -e /run/bad-$name ] || fail "fio on $name"
  done
}
`;
