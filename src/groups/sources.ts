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
A source can have options behind it: FILE,ro (read-only); FILE,bs=4096 (block size);${more === undefined ? '' : ` ${more};`}
FILE,format=raw (serve the bytes of an
image of another format); FILE,shared=on (share it with other servers that use shared=on); FILE,direct=on
(bypass the page cache); FILE,engine=sync (threads do the I/O of this file instead of io_uring), FILE,engine=uring (fail if
io_uring is not available); FILE,zero=unmap (free the space of blocks that hosts fill with zeroes; by default, only existing holes
stay holes); FILE,zero=off (write zeroes like any data); FILE,iops=1000/4000 and FILE,bps=100M/400M/10
(limits). Write a comma in a file name twice.

A limit is RATE[/BURST[/SECONDS]]: RATE operations or bytes a second on average; after idle time, BURST a second for SECONDS
(default: 1). Requests beyond the limit wait. Other sources are not affected. Reads, writes and compares count with their bytes,
discards and writes of zeroes as one operation; flushes are free. QEMU calls the three values iops-total, iops-total-max and
iops-total-max-length. The control socket of the server changes limits at run time. Hosts and guests give up on requests that
wait longer than their time-out (Linux: 30 s).

nvme+tcp://HOST[:PORT]/NQN/NSID is a namespace of another NVMe/TCP target. Its options are path=HOST[:PORT] (another address of the
same subsystem; more than once), discovery=HOST[:PORT] (a discovery service that names addresses of it; more than once; default port:
8009), queues=N (I/O queues), hdgst=on and ddgst=on (digests), hostnqn=NQN, dhchap-secret-file=FILE (key of this host),
dhchap-ctrl-secret-file=FILE (key that the target must prove to know), tls-key-file=FILE (TLS key of this host: connect by TLS 1.3) and
timeout=TIME (default: 10m). Keys are read when the source is opened, and are used for discovery services too. If the target is away,
requests wait and are repeated when it is back; after the time-out they fail until then. Writes that were not flushed when it was lost
are written again, unless shared=on: a flush then reports the loss.

A discovery service is asked when the source is opened, again and again while a path is away, and once a minute otherwise. Its
referrals are followed. New addresses become paths. An address that it does not name any more is dropped when its connection is lost.

A target that would serve itself is rejected, even if other vioctl targets are in between. vioctl cannot see through targets of
other programs, the kernel's NVMe host, or protocols such as NBD. Do not build a loop through them.

Sources on other machines: rbd:POOL[/NAMESPACE]/IMAGE[@SNAP] (Ceph; ,conf=FILE ,id=NAME ,keyring=FILE), nbd://HOST[:PORT]/EXPORT,
nbd+unix:///EXPORT?socket=PATH (nbds: with TLS), nvme+tcp://HOST[:PORT]/NQN/NSID, and qcow2:FILE, which qemu-storage-daemon reads
(,backing=DIR permits backing and data files below DIR). ,timeout=TIME (default: 30s) limits how long requests wait for a source
that does not answer; then they fail with path errors. ./rbd:x is a file. vioctl needs the packages librbd1 for rbd: and libnbd0
for nbd://.

If an NBD or qcow2 server dies and comes back, hosts see a pause: vioctl repeats the writes that were acknowledged but not flushed. With
,shared=on, flushes fail instead, until the source is opened anew. Writes to Ceph are durable when they are answered. The server takes
the exclusive lock of an image that has this feature. If Ceph blocks its client, requests fail with path errors until ctl reopen.

A new size of any source is noticed within a second or two. NBD servers tell the size only to new connections, so vioctl opens one
each second to ask. If the server accepts only one client, the new size is noticed after a lost connection, or at ctl reopen.

The server locks what it serves. It rejects a file that another server or QEMU uses, a mounted device, and an image that is no raw
disk (qcow2, VMDK, VHDX, ISO 9660, compressed files). Several servers can read one file. --force skips these checks.

The serial number of a disk, and the NGUID, EUI-64 and UUID of a namespace, are made from the source itself: from the WWN or serial
number of a device, or from the UUID of the file system, inode and generation of a file. Those of a namespace also depend on the NQN
of its subsystem. A renamed file keeps its identifiers, and a copy has its own. Every server that serves the same source reports
the same identifiers. For namespaces, the servers also need the same --nqn, because the default NQN depends on the paths of the
sources.

A snapshot of a file system contains the same files: a file and its snapshot count as one source. If hosts are to see both, give one
of them other identifiers, with ,uuid= for nvmf serve or --serial for vhost-user serve blk.

--state-dir DIR remembers identifiers. They stay the same if a newer kernel or udev reports the UUID of a file system that had none
before. They change if a device gets a serial number. The systemd unit uses /var/lib/vioctl.

If a flush fails, data may be lost. From then on every flush and FUA write of that source fails, for every host and guest, until the
source is opened anew.`;
