# bash completion of vioctl (generated: npm run gen)
_vioctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} words='' key="${COMP_WORDS[*]:1:COMP_CWORD-1}"
  COMPREPLY=()
  if [[ $cur == -* ]]; then
    local three="${COMP_WORDS[*]:1:3}" two="${COMP_WORDS[*]:1:2}" id
    for id in "$three" "$two"; do
      case "$id" in
      'vfio list') words='--driver --class --unused --group --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'vfio show') words='--json --no-headings --help --quiet --color' ;;
      'vfio bind') words='--group --driver --owner --allow --expect --persist --null --dry-run --json --no-headings --help --quiet --color' ;;
      'vfio unbind') words='--driver --wait --ask --persist --null --dry-run --json --no-headings --help --quiet --color' ;;
      'vfio restore') words='--all --wait --dry-run --json --no-headings --help --quiet --color' ;;
      'vfio doctor') words='--json --no-headings --help --quiet --color' ;;
      'vfio exec') words='--map --bind --replace --user --memlock --api --dry-run --help --quiet --color' ;;
      'vfio reset') words='--hot --api --dry-run --json --no-headings --help --quiet --color' ;;
      'vfio config') words='--raw --api --dry-run --json --no-headings --help --quiet --color' ;;
      'vfio bar') words='--offset --size --width --raw --api --dry-run --json --no-headings --help --quiet --color' ;;
      'vfio irq') words='--type --vectors --count --timeout --api --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'vfio selftest') words='--api --json --no-headings --help --quiet --color' ;;
      'dma plan') words='--reserved --aw --pgsizes --avoid --json --no-headings --help --quiet --color' ;;
      'dma map') words='--listen --notify --timeout --api --dry-run --json --no-headings --help --quiet --color' ;;
      'dma attach') words='--help --quiet --color' ;;
      'dma list') words='--json --no-headings --help --quiet --color' ;;
      'dma unmap') words='--dry-run --json --no-headings --help --quiet --color' ;;
      'uring probe') words='--require --json --no-headings --help --quiet --color' ;;
      'uring register') words='--null --fd --sparse --update --write --hold --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'uring list') words='--pid --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'uring inspect') words='--json --no-headings --help --quiet --color' ;;
      'uring cat') words='--null --engine --depth --stats --ordered --help --quiet --color' ;;
      'uring sum') words='--null --engine --depth --stats --algorithm --ordered --tag --zero --json --ndjson --no-headings --help --quiet --color' ;;
      'uring bench') words='--size --depth --reads --rounds --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'uring sync') words='--null --engine --depth --stats --data --filesystem --ordered --json --ndjson --no-headings --help --quiet --color' ;;
      'nvmf serve') words='--listen --discovery-port --nqn --allow-host --config --control --serial --model --block-size --read-only --threads --engine --spin --json --ndjson --no-headings --help --quiet --color' ;;
      'nvmf ctl') words='--nqn --host --cntlid --allow-host --block-size --read-only --dry-run --timeout --json --no-headings --help --quiet --color' ;;
      'nvmf discover') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'nvmf identify') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --namespace-id --raw --json --no-headings --help --quiet --color' ;;
      'nvmf bench') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --namespace-id --nr-io-queues --queue-size --disable-sqflow --rw --rwmixread --bs --iodepth --threads --runtime --size --spin --dry-run --json --no-headings --help --quiet --color' ;;
      'nvmf conform') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --namespace-id --only --junit --change --dry-run --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'nvmf proxy') words='--listen --to --fault --ndjson --no-headings --help --quiet --color' ;;
      'nvmf read') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --namespace-id --nr-io-queues --queue-size --disable-sqflow --offset --count --start-block --blocks --chunk --iodepth --data --help --quiet --color' ;;
      'nvmf write') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --namespace-id --nr-io-queues --queue-size --disable-sqflow --offset --count --start-block --blocks --chunk --iodepth --data --fua --dry-run --json --no-headings --help --quiet --color' ;;
      'nvmf logs') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --namespace-id --raw --json --no-headings --help --quiet --color' ;;
      'nvmf ping') words='--transport --traddr --trsvcid --hostnqn --hostid --hdr-digest --data-digest --keep-alive-tmo --timeout --nqn --count --interval --json --ndjson --no-headings --help --quiet --color' ;;
      'vhost-user list') words='--all --installed --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'vhost-user probe') words='--hand-over --device --timeout --json --no-headings --help --quiet --color' ;;
      'vhost-user trace') words='--listen --read --output --once --device --ndjson --no-headings --help --quiet --color' ;;
      'vhost-user check') words='--respawn --tap --only --timeout --json --ndjson --no-headings --columns --sort --no-truncate --help --quiet --color' ;;
      'vhost-user shmem serve') words='--region --map --pmem --control --slots --queues --config-size --any-regions --socket-path --fd --print-capabilities --json --no-headings --help --quiet --color' ;;
      'vhost-user shmem map') words='--wait --dry-run --json --no-headings --help --quiet --color' ;;
      'vhost-user shmem unmap') words='--dry-run --json --no-headings --help --quiet --color' ;;
      'vhost-user shmem window') words='--timeout --queues --ndjson --no-headings --help --quiet --color' ;;
      'vhost-user serve blk') words='--file --read-only --queues --block-size --serial --engine --socket-path --fd --print-capabilities --json --no-headings --help --quiet --color' ;;
      'vhost-user shmem list') words='--json --ndjson --no-headings --help --quiet --color' ;;
      'migration dump') words='--snapshot --max-size --offset --bitmap-endian --section --fields --desc --force --json --ndjson --no-headings --help --quiet --color' ;;
      'migration ram') words='--snapshot --max-size --offset --bitmap-endian --output --physical --block --as --at --len --ram-block --below-4g --force --json --no-headings --help --quiet --color' ;;
      'migration verify') words='--snapshot --max-size --offset --bitmap-endian --strict --force --json --no-headings --help --quiet --color' ;;
      'migration stat') words='--snapshot --max-size --offset --bitmap-endian --duplicates --json --no-headings --help --quiet --color' ;;
      'migration diff') words='--snapshot --max-size --offset --bitmap-endian --ram --ignore --json --no-headings --help --quiet --color' ;;
      'migration convert') words='--snapshot --max-size --offset --bitmap-endian --output --to --json --no-headings --help --quiet --color' ;;
      esac
      [[ $words ]] && break
    done
    COMPREPLY=($(compgen -W "$words --help" -- "$cur"))
    return
  fi
  case "$key" in
    '') words='vfio dma uring nvmf vhost-user migration' ;;
    'vfio') words='list show bind unbind restore doctor exec reset config bar irq selftest' ;;
    'dma') words='plan map attach list unmap' ;;
    'uring') words='probe register list inspect cat sum bench sync' ;;
    'nvmf') words='serve ctl discover identify bench conform proxy read write logs ping' ;;
    'vhost-user') words='list probe trace check shmem serve' ;;
    'migration') words='dump ram verify stat diff convert' ;;
    'vhost-user shmem') words='serve map unmap window list' ;;
    'vhost-user serve') words='blk' ;;
  esac
  if [[ $words ]]; then COMPREPLY=($(compgen -W "$words" -- "$cur")); else COMPREPLY=($(compgen -f -- "$cur")); fi
}
complete -o filenames -F _vioctl vioctl
