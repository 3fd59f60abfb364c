# bash completion of vioctl (generated: npm run gen)
# shellcheck shell=bash

# Sets next, the words that can follow the words of a command that is not whole yet.
_vioctl_next() {
  case $1 in
    '') next='vfio dma uring nvmf vhost-user migration help completion' ;;
    completion) next='bash zsh fish' ;;
    'vfio') next='list show bind unbind sriov apply restore doctor exec reset config bar irq selftest' ;;
    'dma') next='plan map attach list unmap' ;;
    'uring') next='probe register list inspect cat sum bench sync' ;;
    'nvmf') next='serve ctl discover identify bench conform proxy read write logs ping' ;;
    'vhost-user') next='list probe trace check ctl shmem serve' ;;
    'vhost-user shmem') next='serve map unmap window list' ;;
    'vhost-user serve') next='blk' ;;
    'migration') next='dump ram verify stat diff convert' ;;
    *) return 1 ;;
  esac
}

# Sets opts (options), vals (option=values) and args (kinds of arguments) of a command.
_vioctl_command() {
  case $1 in
    'vfio list')
      opts='--driver --class --unused --tree --group --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--driver=@free --class=@free --group=@free --columns=@free --sort=@free --color=auto|always|never'
      args='' ;;
    'vfio show')
      opts='--json --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@pci' ;;
    'vfio bind')
      opts='--group --driver --owner --allow --expect --persist --identity --all --wait --null -0 --dry-run --json --no-headings --help -h --quiet --color'
      vals='--driver=@free --owner=@free --allow=mounted|swap|holder|open|route|address|session|upper|console|display|attached|watchdog|edac|kdump|owned|pf-with-vfs|bridge|chipset|boot-disk|group-member --expect=@free --identity=serial|mac|slot|address --wait=@free --color=auto|always|never'
      args='@pci ...' ;;
    'vfio unbind')
      opts='--driver --wait --ask --persist --all --null -0 --dry-run --json --no-headings --help -h --quiet --color'
      vals='--driver=@free --wait=@free --color=auto|always|never'
      args='@pci ...' ;;
    'vfio sriov')
      opts='--vfs --driver --mac --persist --no-autoprobe --vf-token --allow --wait --dry-run --json --no-headings --help -h --quiet --color'
      vals='--vfs=@free --driver=@free --mac=@free --vf-token=@free --allow=mounted|swap|holder|open|route|address|session|upper|console|display|attached|watchdog|edac|kdump|owned|pf-with-vfs|bridge|chipset|boot-disk|group-member --wait=@free --color=auto|always|never'
      args='@pci' ;;
    'vfio apply')
      opts='--check --dry-run --appear --wait --json --no-headings --help -h --quiet --color'
      vals='--appear=@free --wait=@free --color=auto|always|never'
      args='@file' ;;
    'vfio restore')
      opts='--all --wait --dry-run --json --no-headings --help -h --quiet --color'
      vals='--wait=@free --color=auto|always|never'
      args='' ;;
    'vfio doctor')
      opts='--json --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='' ;;
    'vfio exec')
      opts='--map --bind --replace --user --memlock --api --vf-token --dry-run --help -h --quiet --color'
      vals='--map=@file --user=@free --memlock=@free --api=auto|group|cdev --vf-token=@free --color=auto|always|never'
      args='@pci ...' ;;
    'vfio reset')
      opts='--hot --method --api --vf-token --dry-run --json --no-headings --help -h --quiet --color'
      vals='--method=@free --api=auto|group|cdev --vf-token=@free --color=auto|always|never'
      args='@pci' ;;
    'vfio config')
      opts='--raw --api --vf-token --dry-run --json --no-headings --help -h --quiet --color'
      vals='--api=auto|group|cdev --vf-token=@free --color=auto|always|never'
      args='@pci @free ...' ;;
    'vfio bar')
      opts='--offset --size --width --raw --api --vf-token --dry-run --json --no-headings --help -h --quiet --color'
      vals='--offset=@free --size=@free --width=1|2|4|8 --api=auto|group|cdev --vf-token=@free --color=auto|always|never'
      args='@pci @free read|write|dump @free ...' ;;
    'vfio irq')
      opts='--type --vectors --count --timeout --api --vf-token --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--type=intx|msi|msix|err|req --vectors=@free --count=@free --timeout=@free --api=auto|group|cdev --vf-token=@free --columns=@free --sort=@free --color=auto|always|never'
      args='@pci list|wait' ;;
    'vfio selftest')
      opts='--api --vf-token --json --no-headings --help -h --quiet --color'
      vals='--api=auto|group|cdev --vf-token=@free --color=auto|always|never'
      args='@pci' ;;
    'dma plan')
      opts='--reserved --aw --pgsizes --avoid --json --no-headings --help -h --quiet --color'
      vals='--reserved=@file --aw=@free --pgsizes=@free --avoid=@free --color=auto|always|never'
      args='@pci ...' ;;
    'dma map')
      opts='--listen --notify --timeout --api --vf-token --dry-run --json --no-headings --help -h --quiet --color'
      vals='--listen=@socket --timeout=@free --api=auto|group|cdev --vf-token=@free --color=auto|always|never'
      args='@pci @file ...' ;;
    'dma attach')
      opts='--help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@socket' ;;
    'dma list')
      opts='--json --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@socket' ;;
    'dma unmap')
      opts='--dry-run --json --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@socket @free' ;;
    'uring probe')
      opts='--require --json --no-headings --help -h --quiet --color'
      vals='--require=@free --color=auto|always|never'
      args='' ;;
    'uring register')
      opts='--null -0 --fd --sparse --update --write -w --hold --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--fd=@free --sparse=@free --update=@file --columns=@free --sort=@free --color=auto|always|never'
      args='@file ...' ;;
    'uring list')
      opts='--watch --pid --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--watch=@free --pid=@free --columns=@free --sort=@free --color=auto|always|never'
      args='' ;;
    'uring inspect')
      opts='--json --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@free' ;;
    'uring cat')
      opts='--null -0 --engine --depth -q --stats --ordered --no-ordered --help -h --quiet --color'
      vals='--engine=auto|uring|sync --depth=@free -q=@free --color=auto|always|never'
      args='@file ...' ;;
    'uring sum')
      opts='--null -0 --engine --depth -q --stats --algorithm -a --recursive -r --check -c --status --ignore-missing --strict --warn -w --ordered --tag --zero -z --json --ndjson --no-headings --help -h --quiet --color'
      vals='--engine=auto|uring|sync --depth=@free -q=@free --algorithm=crc32c|md5|sha1|sha224|sha256|sha384|sha512|blake2b512|blake3|xxh32|xxh64|xxh128|xxh3 -a=crc32c|md5|sha1|sha224|sha256|sha384|sha512|blake2b512|blake3|xxh32|xxh64|xxh128|xxh3 --color=auto|always|never'
      args='@file ...' ;;
    'uring bench')
      opts='--size --depth -q --reads --rounds --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--size=@free --depth=@free -q=@free --reads=@free --rounds=@free --columns=@free --sort=@free --color=auto|always|never'
      args='@file' ;;
    'uring sync')
      opts='--null -0 --engine --depth -q --stats --data -d --filesystem -f --ordered --json --ndjson --no-headings --help -h --quiet --color'
      vals='--engine=auto|uring|sync --depth=@free -q=@free --color=auto|always|never'
      args='@file ...' ;;
    'nvmf serve')
      opts='--listen --discovery-port --discovery-nqn --nqn --allow-host --dhchap-secret-file --dhchap-ctrl-secret-file --tls-key-file --tls --config --control --metrics --log-format --state-dir --serial --cntlid-range --model --block-size --read-only --force --max-controllers --max-connections --max-queues --threads --engine --spin --json --ndjson --no-headings --help -h --quiet --color'
      vals='--listen=@free --discovery-port=@free --discovery-nqn=@free --nqn=@free --allow-host=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --tls=allow|require|off --config=@file --control=@socket --metrics=@free --log-format=text|json --state-dir=@file --serial=@free --cntlid-range=@free --model=@free --block-size=@free --max-controllers=@free --max-connections=@free --max-queues=@free --threads=@free --engine=auto|uring|sync --spin=@free --color=auto|always|never'
      args='@file ...' ;;
    'nvmf ctl')
      opts='--watch --nqn --host --cntlid --group --advertise --tls --discovery-only --allow-host --block-size --read-only --force --check --dry-run --timeout --json --ndjson --no-headings --help -h --quiet --color'
      vals='--watch=@free --nqn=@free --host=@free --cntlid=@free --group=@free --advertise=@free --tls=allow|require|off --allow-host=@free --block-size=@free --timeout=@free --color=auto|always|never'
      args='@socket list|stats|add|remove|resize|reopen|mask|host|listener|referral|limits|ana|keys|kick|drain|save|load @free ...' ;;
    'nvmf discover')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --columns=@free --sort=@free --color=auto|always|never'
      args='' ;;
    'nvmf identify')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --namespace-id --raw --json --no-headings --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --namespace-id=@free --color=auto|always|never'
      args='' ;;
    'nvmf bench')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --namespace-id --nr-io-queues -i --queue-size -Q --disable-sqflow --rw --rwmixread --bs --iodepth --threads --runtime --size --spin --dry-run --json --no-headings --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --namespace-id=@free --nr-io-queues=@free -i=@free --queue-size=@free -Q=@free --rw=randread|randwrite|randrw|read|write|rw --rwmixread=@free --bs=@free --iodepth=@free --threads=@free --runtime=@free --size=@free --spin=@free --color=auto|always|never'
      args='' ;;
    'nvmf conform')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --namespace-id --only --junit --change --change-ana --dry-run --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --namespace-id=@free --only=@free --change=@free --change-ana=@free --columns=@free --sort=@free --color=auto|always|never'
      args='' ;;
    'nvmf proxy')
      opts='--listen --to --pcap --fault --ndjson --no-headings --help -h --quiet --color'
      vals='--listen=@free --to=@free --pcap=@file --fault=@free --color=auto|always|never'
      args='' ;;
    'nvmf read')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --namespace-id --nr-io-queues -i --queue-size -Q --disable-sqflow --offset --count --start-block --blocks --chunk --iodepth --data -d --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --namespace-id=@free --nr-io-queues=@free -i=@free --queue-size=@free -Q=@free --offset=@free --count=@free --start-block=@free --blocks=@free --chunk=@free --iodepth=@free --data=@file -d=@file --color=auto|always|never'
      args='' ;;
    'nvmf write')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --namespace-id --nr-io-queues -i --queue-size -Q --disable-sqflow --offset --count --start-block --blocks --chunk --iodepth --data -d --sparse --fua --dry-run --json --no-headings --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --namespace-id=@free --nr-io-queues=@free -i=@free --queue-size=@free -Q=@free --offset=@free --count=@free --start-block=@free --blocks=@free --chunk=@free --iodepth=@free --data=@file -d=@file --color=auto|always|never'
      args='' ;;
    'nvmf logs')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --namespace-id --raw --json --no-headings --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --namespace-id=@free --color=auto|always|never'
      args='smart|error|fw|effects|ana|changed-ns|discovery' ;;
    'nvmf ping')
      opts='--transport -t --traddr -a --trsvcid -s --hostnqn -q --hostid -I --hdr-digest -g --data-digest -G --keep-alive-tmo -k --dhchap-secret-file --dhchap-ctrl-secret-file --tls --tls-key-file --timeout --nqn -n --count -c --interval --json --ndjson --no-headings --help -h --quiet --color'
      vals='--transport=tcp -t=tcp --traddr=@free -a=@free --trsvcid=@free -s=@free --hostnqn=@free -q=@free --hostid=@free -I=@free --keep-alive-tmo=@free -k=@free --dhchap-secret-file=@file --dhchap-ctrl-secret-file=@file --tls-key-file=@file --timeout=@free --nqn=@free -n=@free --count=@free -c=@free --interval=@free --color=auto|always|never'
      args='' ;;
    'vhost-user list')
      opts='--all -a --installed --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--columns=@free --sort=@free --color=auto|always|never'
      args='' ;;
    'vhost-user probe')
      opts='--listen -l --hand-over --device --timeout --json --no-headings --help -h --quiet --color'
      vals='--hand-over=@file --device=@free --timeout=@free --color=auto|always|never'
      args='@socket' ;;
    'vhost-user trace')
      opts='--listen -l --vmm-serves --read -r --output -o --once --device --ndjson --no-headings --help -h --quiet --color'
      vals='--listen=@file -l=@file --read=@file -r=@file --output=@file -o=@file --device=@free --color=auto|always|never'
      args='@socket' ;;
    'vhost-user check')
      opts='--listen -l --respawn --tap --only --timeout --json --ndjson --no-headings --columns --sort --no-truncate --help -h --quiet --color'
      vals='--respawn=@free --only=@free --timeout=@free --columns=@free --sort=@free --color=auto|always|never'
      args='@socket' ;;
    'vhost-user ctl')
      opts='--watch --check --dry-run --timeout --json --ndjson --no-headings --help -h --quiet --color'
      vals='--watch=@free --timeout=@free --color=auto|always|never'
      args='@socket list|stats|add|remove|throttle|resize|reopen|save|load @free ...' ;;
    'vhost-user shmem serve')
      opts='--region --map -m --pmem --control --slots --queues --config-size --any-regions --socket-path --fd --print-capabilities --json --no-headings --help -h --quiet --color'
      vals='--region=@free --map=@file -m=@file --control=@file --queues=@free --config-size=@free --socket-path=@file --fd=@free --color=auto|always|never'
      args='@socket' ;;
    'vhost-user shmem map')
      opts='--wait --dry-run --json --no-headings --help -h --quiet --color'
      vals='--wait=@free --color=auto|always|never'
      args='@socket @file' ;;
    'vhost-user shmem unmap')
      opts='--dry-run --json --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@socket @free' ;;
    'vhost-user shmem window')
      opts='--timeout --queues --ndjson --no-headings --help -h --quiet --color'
      vals='--timeout=@free --queues=@free --color=auto|always|never'
      args='@socket' ;;
    'vhost-user serve blk')
      opts='--config --file -f --read-only --force --allow-source --control --log-format --incoming --queues --block-size --state-dir --serial --engine --spin --socket-path --socket-mode --socket-owner --socket-group --fd --print-capabilities --json --no-headings --help -h --quiet --color'
      vals='--config=@file --file=@file -f=@file --allow-source=@free --control=@socket --log-format=text|json --queues=@free --block-size=@free --state-dir=@file --serial=@free --engine=auto|uring|sync --spin=@free --socket-path=@file --socket-mode=@free --socket-owner=@free --socket-group=@free --fd=@free --color=auto|always|never'
      args='@free ...' ;;
    'vhost-user shmem list')
      opts='--json --ndjson --no-headings --help -h --quiet --color'
      vals='--color=auto|always|never'
      args='@socket' ;;
    'migration dump')
      opts='--snapshot --max-size --offset --bitmap-endian --section --fields --desc --xml --force --json --ndjson --no-headings --help -h --quiet --color'
      vals='--snapshot=@free --max-size=@free --offset=@free --bitmap-endian=little|big --section=@free --color=auto|always|never'
      args='@file' ;;
    'migration ram')
      opts='--snapshot --max-size --offset --bitmap-endian --output -o --physical --block --as --at --len --machine --ram-block --layout --rom --partial --below-4g --force --json --no-headings --help -h --quiet --color'
      vals='--snapshot=@free --max-size=@free --offset=@free --bitmap-endian=little|big --output=@file -o=@file --block=@free --as=raw|sparse|elf|lime --at=@free --len=@free --machine=@free --ram-block=@free --layout=@free --below-4g=@free --color=auto|always|never'
      args='@file' ;;
    'migration verify')
      opts='--snapshot --max-size --offset --bitmap-endian --strict --against --force --json --no-headings --help -h --quiet --color'
      vals='--snapshot=@free --max-size=@free --offset=@free --bitmap-endian=little|big --against=@free --color=auto|always|never'
      args='@file' ;;
    'migration stat')
      opts='--snapshot --max-size --offset --bitmap-endian --duplicates --json --no-headings --help -h --quiet --color'
      vals='--snapshot=@free --max-size=@free --offset=@free --bitmap-endian=little|big --color=auto|always|never'
      args='@file' ;;
    'migration diff')
      opts='--snapshot --max-size --offset --bitmap-endian --ram --fields --structure --ignore --json --no-headings --help -h --quiet --color'
      vals='--snapshot=@free --max-size=@free --offset=@free --bitmap-endian=little|big --ignore=@free --color=auto|always|never'
      args='@file @file' ;;
    'migration convert')
      opts='--snapshot --max-size --offset --bitmap-endian --output -o --to --json --no-headings --help -h --quiet --color'
      vals='--snapshot=@free --max-size=@free --offset=@free --bitmap-endian=little|big --output=@file -o=@file --to=mapped-ram --color=auto|always|never'
      args='@file' ;;
    *) return 1 ;;
  esac
}

# Adds what can stand for the values $1: words joined by |, or @file, @socket, @pci, @free.
_vioctl_values() {
  local name
  case $1 in
    @file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    @socket)
      while IFS= read -r name; do
        [[ -S $name || -d $name ]] && COMPREPLY+=("$name")
      done < <(compgen -f -- "$cur") ;;
    @pci) mapfile -t COMPREPLY < <(cd "${VIOCTL_SYSROOT:-}/sys/bus/pci/devices" 2>/dev/null && compgen -f -- "$cur") ;;
    @*) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "${1//|/ }" -- "$cur") ;;
  esac
}

_vioctl() {
  # Bash cuts words at : and =; here they are whole again.
  local -a words=()
  local i word glue=
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ -n $glue || ( $word =~ ^[:=]+$ && ${#words[@]} -gt 0 ) ]]; then
      words[${#words[@]} - 1]+=$word
      [[ $word =~ ^[:=]+$ ]] && glue=1 || glue=
    else
      words+=("$word")
    fi
  done
  local cur=${words[-1]} opts='' vals='' args='' next='' id='' entry
  local -a line=("${words[@]:1:${#words[@]}-2}")
  COMPREPLY=()
  [[ ${line[0]} == help ]] && line=("${line[@]:1}")

  # the words of the command
  local used=0
  while _vioctl_next "$id"; do
    if ((used == ${#line[@]})); then
      if [[ $cur == -* ]]; then COMPREPLY=(--help); else mapfile -t COMPREPLY < <(compgen -W "$next" -- "$cur"); fi
      return
    fi
    id+=${id:+ }${line[used++]}
  done
  _vioctl_command "$id" || return
  [[ ${words[1]} == help ]] && return

  # options and arguments before the cursor
  local position=0 prev='' ended=
  for word in "${line[@]:used}"; do
    if [[ $prev ]]; then prev=
    elif [[ $ended ]]; then ((position++))
    elif [[ $word == -- ]]; then ended=1
    elif [[ $word == -?* ]]; then
      for entry in $vals; do [[ ${entry%%=*} == "$word" ]] && prev=$word; done
    else ((position++))
    fi
  done
  if [[ $prev ]]; then
    for entry in $vals; do [[ ${entry%%=*} == "$prev" ]] && _vioctl_values "${entry#*=}"; done
  elif [[ ! $ended && $cur == --*=* ]]; then
    local option=${cur%%=*}
    cur=${cur#*=}
    for entry in $vals; do [[ ${entry%%=*} == "$option" ]] && _vioctl_values "${entry#*=}"; done
    return # bash replaces only what follows the =
  elif [[ ! $ended && $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$opts" -- "$cur")
  else
    local -a kinds
    read -ra kinds <<<"$args"
    local last=$((${#kinds[@]} - 1))
    if ((last > 0)) && [[ ${kinds[last]} == ... ]]; then
      unset 'kinds[last]'
      ((position >= last)) && position=$((last - 1))
    fi
    if ((position < ${#kinds[@]})); then
      _vioctl_values "${kinds[position]}"
    elif [[ $ended ]]; then
      mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
    fi
  fi
  # bash replaces only what follows the last : of the word
  if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
    local before=${cur%"${cur##*:}"}
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
  fi
}
complete -o filenames -F _vioctl vioctl
