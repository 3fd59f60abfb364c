// Linux's own target (nvmet) in a guest.

/** A namespace of nvmet: a device, or a file that is `buffered`. */
export interface NvmetNamespace {
  nsid: number;
  path: string;
  buffered?: boolean;
  /** the same each time that a machine starts, so that hosts know the disk again; otherwise nvmet makes one up */
  uuid?: string;
}

/** Shell lines that serve a subsystem to any host on port 4420. They end in the folder of the port, with the subsystem at `subsystems/x`. */
export function nvmetLines(nqn: string, namespaces: readonly NvmetNamespace[]): string {
  return `
modprobe nvmet; modprobe nvmet-tcp
mount -t configfs none /sys/kernel/config 2>/dev/null || [ -d /sys/kernel/config/nvmet ]
cd /sys/kernel/config/nvmet
s=$PWD/subsystems/${nqn}
mkdir $s; echo 1 >$s/attr_allow_any_host
${namespaces
  .map(
    ({ nsid, path, buffered, uuid }) => `
mkdir $s/namespaces/${nsid}${
      uuid
        ? `
echo ${uuid} >$s/namespaces/${nsid}/device_uuid`
        : ''
    }
echo ${buffered ? 1 : 0} >$s/namespaces/${nsid}/buffered_io
printf %s "${path}" >$s/namespaces/${nsid}/device_path
echo 1 >$s/namespaces/${nsid}/enable`,
  )
  .join('')}
mkdir ports/1; cd ports/1
echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo 0.0.0.0 >addr_traddr; echo 4420 >addr_trsvcid
ln -s $s subsystems/x
`;
}
