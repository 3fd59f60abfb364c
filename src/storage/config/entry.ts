/** A source in a configuration file: the keys that every server knows. */
export interface SourceEntry {
  /** file, block device, or ram:SIZE; relative paths start in the folder of the file. Options are the other keys, not part of the name */
  source: string;
  /** bytes of a logical block; default: of the device, 512 for a file. @minimum 512 @maximum 65536 */
  blockSize?: number;
  /** reject writes; default: false */
  readOnly?: boolean;
  /** serve a source that is in use, or that is not a raw disk; default: false */
  force?: boolean;
  /** raw: serve the bytes of an image of another format as they are */
  format?: 'raw';
  /** allow other servers that also set shared; default: false. Nothing stops late writes of a server whose hosts have moved to another one */
  shared?: boolean;
  /** bypass the page cache (O_DIRECT); default: false */
  direct?: boolean;
  /** engine for I/O of this file that can block: sync (threads) or uring (io_uring); default: the engine of the server */
  engine?: 'auto' | 'uring' | 'sync';
  /** effect of writes of zeroes: unmap frees space, off writes the zeroes; default: existing holes stay holes */
  zero?: 'unmap' | 'off';
  /** operations a second, RATE[/BURST[/SECONDS]], or none */
  iops?: number | string;
  /** bytes a second, RATE[/BURST[/SECONDS]], such as 100M/400M/10, or none */
  bps?: number | string;
  /** options of a remote source */
  remote?: RemoteEntry;
}

/** Options of remote sources; each kind of source has some of them. Relative names of files start in the folder of the file. */
export interface RemoteEntry {
  /** time that a request waits for a source that does not answer, such as 30s */
  timeout?: string;
  /** rbd: configuration file of Ceph */
  conf?: string;
  /** rbd: name of the client, without the prefix client. */
  id?: string;
  /** rbd: file with the client's key */
  keyring?: string;
  /** qcow2: folder that may contain backing and data files */
  backing?: string;
  /** nvme+tcp: NQN of the host */
  hostnqn?: string;
  /** nvme+tcp: use header digests */
  hdgst?: boolean;
  /** nvme+tcp: use data digests */
  ddgst?: boolean;
  /** nvme+tcp: I/O queues. @minimum 1 @maximum 64 */
  queues?: number;
  /** nvme+tcp: file with the DH-HMAC-CHAP key of the host */
  dhchapSecretFile?: string;
  /** nvme+tcp: another name of dhchapSecretFile */
  dhchapFile?: string;
  /** nvme+tcp: file with the DH-HMAC-CHAP key with which the target must authenticate */
  dhchapCtrlSecretFile?: string;
  /** nvme+tcp: connect with TLS 1.3; needs tlsKeyFile. Default: true if there is a tlsKeyFile */
  tls?: boolean;
  /** nvme+tcp: file with the TLS key of the host */
  tlsKeyFile?: string;
  /** nvme+tcp: more addresses of the same subsystem, HOST[:PORT] */
  paths?: string[];
  /** nvme+tcp: discovery services that name addresses of the subsystem, HOST[:PORT]; the default port is 8009 */
  discovery?: string[];
}
