/**
 * The configuration file of `nvmf serve`, key by key. The JSON Schema and vioctl-nvmf(5) are made from these types and their
 * comments; the checks of check.ts must name exactly these keys, or they do not compile.
 */

import type { SourceEntry } from '../../../storage/config/entry.js';

/** The whole file. Only `subsystems` is required. */
export interface ConfigFile {
  /** path of the JSON Schema, for editors; ignored */
  $schema?: string;
  /**
   * addresses where hosts connect, ADDRESS[:PORT][,advertise=ADDRESS:PORT][,tls=require|allow|off]; default: 127.0.0.1:4420. Discovery
   * tells hosts the address of advertise= instead. tls= applies to this address alone. With an empty list, the server listens only on
   * addresses that nvmf ctl or the service manager adds
   */
  listen?: string[];
  /** addresses that answer discovery only, as in listen; discoveryPort adds more */
  listenDiscovery?: string[];
  /** port that answers discovery only, on each address of listen; "none" disables it; default: 8009 if free. @minimum 0 @maximum 65535 */
  discoveryPort?: number | 'none';
  /** IP addresses with the discoveryPort; default: those of listen. nvmf ctl save writes them if nvmf ctl changed listeners */
  discoveryAddresses?: string[];
  /** path of the control socket for nvmf ctl */
  control?: string;
  /** folder that remembers the identities of sources */
  stateDir?: string;
  /** address for metrics: [ADDRESS]:PORT on loopback, or the path of a UNIX socket; see METRICS */
  metrics?: string;
  /** threads for connections; default: 1. @minimum 1 @maximum 64 */
  threads?: number;
  /** busy-poll time before sleeping, in µs; default: 30. @minimum 0 @maximum 1000000 */
  spinMicroseconds?: number;
  /** controllers (connected hosts) at a time; default: 512. @minimum 1 @maximum 65519 */
  maxControllers?: number;
  /** connections at a time; default: 1024. @minimum 1 @maximum 65535 */
  maxConnections?: number;
  /** I/O queues of each controller; default: 64. @minimum 1 @maximum 64 */
  maxQueues?: number;
  /** NQN of the discovery service besides the well-known one. @maxLength 223 */
  discoveryNqn?: string;
  /** engine for I/O that can block: uring (io_uring), sync (threads with system calls), or auto: uring if it works; default: auto */
  engine?: 'auto' | 'uring' | 'sync';
  /** allow header digests (checksums) to hosts that ask; default: true */
  headerDigest?: boolean;
  /** allow data digests to hosts that ask; default: true */
  dataDigest?: boolean;
  /**
   * patterns of the sources that nvmf ctl may open, such as /srv/images/*.img, /dev/vg0/* or ram:*; default: all. Symbolic links
   * are followed first. `*` matches no slash, `**` matches everything. Files, folders and addresses in the options of a
   * source must match too, and files of new keys
   */
  sources?: string[];
  /** other discovery services in the discovery log */
  referrals?: ReferralEntry[];
  /** limits of single hosts, or of each host */
  hostLimits?: HostLimitEntry[];
  /** keys of hosts. With any key for DH-HMAC-CHAP (authentication), every host must authenticate; see SECURITY */
  keys?: KeyEntry[];
  /** TLS 1.3 on listeners without tls=: allowed, required or off; default: require if a key for TLS is given */
  tls?: 'allow' | 'require' | 'off';
  /** hash functions for DH-HMAC-CHAP, the preferred one first; default: sha512, sha384, sha256 */
  dhchapHashes?: ('sha256' | 'sha384' | 'sha512')[];
  /** Diffie-Hellman groups for DH-HMAC-CHAP, the preferred one first; default: ffdhe3072, 4096, 6144, 8192, 2048, null */
  dhchapGroups?: ('null' | 'ffdhe2048' | 'ffdhe3072' | 'ffdhe4096' | 'ffdhe6144' | 'ffdhe8192')[];
  /** the subsystems to serve */
  subsystems: SubsystemEntry[];
}

/** Another discovery service. */
export interface ReferralEntry {
  /** IP address */
  address: string;
  /** port. @minimum 1 @maximum 65535 */
  port: number;
  /** NQN of the service; default: the well-known one */
  nqn?: string;
}

/** Limits of one host. A missing limit comes from the entry of host "any", or otherwise from the server. */
export interface HostLimitEntry {
  /** NQN of the host; hostid: and the 32 digits of its ID, for a host without a name; or any */
  host: string;
  /** connections that have a queue. @minimum 1 @maximum 65535 */
  connections?: number;
  /** I/O queues of a controller. @minimum 1 @maximum 64 */
  queues?: number;
  /** bytes of data in its commands under way. @minimum 4096 @maximum 1099511627776 */
  bytes?: number;
}

/** The keys of a host. Each is in a file that only its owner can read; env:NAME and fd:N name a variable or a descriptor instead. */
export interface KeyEntry {
  /** NQN of the host; default: every host without an entry of its own */
  host?: string;
  /** key with which the host authenticates (DHHC-1:…), as nvme gen-dhchap-key makes it */
  dhchapSecretFile?: string;
  /** key with which the target authenticates if a host asks for it (DHHC-1:…) */
  dhchapCtrlSecretFile?: string;
  /** configured pre-shared key for TLS (NVMeTLSkey-1:…), as nvme gen-tls-key makes it */
  tlsKeyFile?: string;
}

/** A set of namespaces under one name. */
export interface SubsystemEntry {
  /** name: nqn.YYYY-MM.DOMAIN:TEXT, at most 223 bytes. @maxLength 223 */
  nqn: string;
  /** serial number, up to 20 ASCII characters; default: made from the NQN. @maxLength 20 */
  serial?: string;
  /** model, up to 40 ASCII characters. @maxLength 40 */
  model?: string;
  /** controller IDs to give out, MIN-MAX; default: 1-65519. Servers of one subsystem need ranges that do not overlap */
  cntlids?: string;
  /** NQNs of the hosts that may connect; default: every host. With an empty list, nobody may connect */
  allowHosts?: string[];
  /** admit every host and ignore the list, until nvmf ctl host any off; default: false */
  anyHost?: boolean;
  /** states of ANA groups; groups that are not listed are optimized */
  ana?: AnaEntry[];
  /** disks. A namespace without nsid gets the lowest free one, in the order of the file */
  namespaces: NamespaceEntry[];
}

/** The access state of an ANA group (asymmetric namespace access). Hosts choose among several paths by it. */
export interface AnaEntry {
  /** number of the group. @minimum 1 @maximum 32 */
  group: number;
  /** address of a listener, if the state is only for hosts that connect there; port 0 if listen has port 0 */
  listener?: string;
  /** access through this server */
  state: 'optimized' | 'non-optimized' | 'inaccessible' | 'persistent-loss' | 'change';
}

/** A disk. */
export interface NamespaceEntry extends SourceEntry {
  /** number of the namespace; default: the lowest free one. Give it if the list may change: a namespace with another number is another disk. @minimum 1 @maximum 16384 */
  nsid?: number;
  /** ANA group; default: 1. @minimum 1 @maximum 32 */
  group?: number;
  /** NQNs of the hosts that see the namespace; default: all hosts of the subsystem. An empty list hides it */
  hosts?: string[];
  /** NGUID, 32 hexadecimal digits; default: made from the source. @pattern ^[0-9A-Fa-f]{32}$ */
  nguid?: string;
  /** EUI-64, 16 hexadecimal digits; default: made from the source. @pattern ^[0-9A-Fa-f]{16}$ */
  eui64?: string;
  /** UUID; default: made from the source */
  uuid?: string;
}
