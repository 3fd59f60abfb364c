import { Flags } from '../cli/flags.js';

/** `--state-dir` of every server. */
export const stateDirFlag = Flags.string({
  helpValue: 'DIR',
  summary: 'remember the identities of sources here [default: $STATE_DIRECTORY]',
});

/** The folder of --state-dir; by default the one that systemd gives a unit with StateDirectory=. */
export const stateDirOf = (given: string | undefined, env: NodeJS.ProcessEnv): string | undefined =>
  given ?? (env.STATE_DIRECTORY?.split(':')[0] || undefined);

/** What help says of sources, the same for every server. @param more options of one kind of server */
export const sourceHelp = (more?: string): string =>
  `\
A source is FILE, a block device, ram:SIZE, or a source on another machine (below). Options follow it, separated by commas:
ro (read-only); bs=4096 (block size);${more === undefined ? '' : ` ${more};`} format=raw (serve the bytes of an image of another format);
shared=on (share it with other servers that use shared=on); direct=on (bypass the page cache); engine=sync (use threads instead of
io_uring), engine=uring (fail if io_uring is not available); zero=unmap (free the space of blocks that hosts fill with zeroes),
zero=off (write zeroes like any data), by default only existing holes stay holes; iops=1000/4000 and bps=100M/400M/10 (limits). For
example: disk.img,ro,bs=4096. Write a comma in a file name twice.

A limit is RATE[/BURST[/SECONDS]]: RATE operations or bytes a second on average; after idle time, BURST a second for SECONDS
(default: 1). Requests beyond the limit wait; other sources are not affected. Reads, writes and compares take their size from the
limit of bytes. Discards and writes of zeroes count as one operation, and flushes are free. The control socket of the server changes
limits at run time. QEMU calls the three values iops-total, iops-total-max and iops-total-max-length. Hosts and guests give up on
requests that wait longer than their time-out (Linux: 30 s).

Sources on other machines:
rbd:POOL[/NAMESPACE]/IMAGE[@SNAP] is an image of Ceph, with the options conf=FILE, id=NAME and keyring=FILE; it needs the package
librbd1. nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH are exports of an NBD server (nbds: with TLS); they need the
package libnbd0. qcow2:FILE is an image that qemu-storage-daemon reads; backing=DIR permits its backing and data files below DIR.
nvme+tcp://HOST[:PORT]/NQN/NSID is a namespace of another NVMe/TCP target. With timeout=TIME (default: 30s; nvme+tcp: 10m), a request
to a source that does not answer fails after TIME with a path error. A file of such a name is ./rbd:x.

The options of nvme+tcp are path=HOST[:PORT] (another address of the same subsystem; may be repeated), discovery=HOST[:PORT] (a
discovery service that names addresses of it; may be repeated; default port: 8009), queues=N (I/O queues), hdgst=on and ddgst=on
(digests), hostnqn=NQN, dhchap-secret-file=FILE (key of this host), dhchap-ctrl-secret-file=FILE (key that the target must prove to
know) and tls-key-file=FILE (TLS key of this host; connects with TLS 1.3). Keys are read when the source is opened, and also used for
discovery services. While the target is away, requests wait. When it is back, vioctl repeats them, and the writes that were not
flushed; with shared=on, it does not repeat those writes, and the next flush reports the loss.

vioctl asks a discovery service when it opens the source, repeatedly while a path is away, and otherwise once a minute. It follows
referrals and adds new addresses as paths. It drops an address that the service no longer names when its connection is lost.

A target that would serve itself is rejected, even if other vioctl targets are in between. vioctl cannot see through targets of
other programs, the kernel's NVMe host, or protocols such as NBD. Do not build a loop through them.

If an NBD or qcow2 server dies and comes back, hosts see a pause: vioctl repeats the writes that were acknowledged but not flushed.
With shared=on, flushes fail instead, until the source is opened again. Writes to Ceph are durable when they are answered. The server
takes the exclusive lock of an image that has this feature. If Ceph blocks its client, requests fail with path errors until ctl
reopen.

The server notices a new size of any source within two seconds. NBD servers tell the size only to new connections, so vioctl opens
one each second to ask. If the server accepts only one client, vioctl notices the new size after a lost connection, or at ctl reopen.

The server locks its sources. It rejects a file that another server or QEMU uses, a mounted device, and an image that is not a raw
disk (qcow2, VMDK, VHDX, ISO 9660, compressed files). Several servers can read one file. --force skips these checks.

The serial number of a disk, and the NGUID, EUI-64 and UUID of a namespace, come from the source itself: from the WWN or serial
number of a device, or from the UUID of the file system, inode and generation of a file. Those of a namespace also depend on the NQN
of its subsystem. A renamed file keeps its identifiers, and a copy has its own. Every server of the same source reports the same
identifiers. For namespaces, the servers also need the same --nqn, because the default NQN depends on the paths of the sources.

A file and its copy in a snapshot of the file system have the same identifiers. If hosts are to see both, give one of them others,
with ,uuid= for nvmf serve or --serial for vhost-user serve blk.

--state-dir DIR remembers identifiers. They stay the same if a newer kernel or udev reports the UUID of a file system that had none
before. They change if a device gets a serial number. The systemd unit uses /var/lib/vioctl.

If a flush fails, data may be lost. From then on every flush and FUA write of that source fails, for every host and guest, until the
source is opened again.`;
