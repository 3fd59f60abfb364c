# Behind tests/nvme/rc of blktests: its target is vioctl, seen through the folders of nvmet.ts.
# shellcheck shell=bash disable=SC2034
NVMET_CFS=/run/nvmet/fs/config
NVMET_DFS=/run/nvmet/fs/debug
export def_subsysnqn=nqn.2014-08.org.example:blktests

# the transport does not matter to these, and nvmet has "loop" for a host on the same machine
_require_nvme_trtype_is_loop() {
	case $TEST_NAME in
	nvme/052 | nvme/055) return 0 ;;
	esac
	_require_nvme_trtype loop
}

# behind the number of a kernel of Debian comes more than the original expects
_have_kver() {
	local release
	release=$(uname -r)
	if _compare_three_version_numbers "${release%%[!0-9.]*}" "$1" "$2" "$3"; then
		SKIP_REASONS+=("Kernel version is older than $1.$2.$3")
		return 1
	fi
}

# a newer nvme-cli for TLS; names that are no NQN are those of nvmet.ts
nvme() {
	local words=("${@/#blktests-/nqn.2014-08.org.example:blktests-}")
	case $TEST_NAME in
	nvme/062 | nvme/063) nvme-tls "${words[@]}" ;;
	*) command nvme "${words[@]}" ;;
	esac
}

# nvmet takes keys for TLS from the keyring of the kernel, where this puts them; vioctl reads a file
eval "keyring$(declare -f _nvme_gen_tls_key)"
_nvme_gen_tls_key() {
	local said
	said=$(keyring_nvme_gen_tls_key "$@") || return
	(umask 077; grep '^NVMeTLSkey-1:' <<<"$said" >/run/nvmet/tls.key)
	echo "$said"
}

# an emulated machine beside other work is slow: a minute instead of five seconds for what is waited for
eval "$(declare -f _nvmf_wait_for_ns | sed 's/timeout="5"/timeout="60"/')"
eval "$(declare -f _nvmf_wait_for_state | sed 's/def_state_timeout=5/def_state_timeout=60/')"
