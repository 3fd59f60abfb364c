/** Flags of the commands that are a host of NVMe over TCP, spelled as nvme-cli spells them, and what they mean. */

import { Flags } from '../../cli/flags.js';
import type { Lifetime } from '../../cli/signals.js';
import { usage } from '../../common/errors.js';
import {
  Controller,
  type ControllerOptions,
  chapOptions,
  hostIdentity,
  OpenNamespace,
  tlsOptions,
  tlsOptionsFor,
} from '../../nvme/host/index.js';
import { discoveryNqn } from '../../nvme/wire/index.js';

/** Flags that say where the target is and how to speak to it. */
export const endpointFlags = {
  transport: Flags.option({ char: 't', options: ['tcp'] as const, default: 'tcp', summary: 'transport; tcp is the only one' })(),
  traddr: Flags.string({ char: 'a', default: '127.0.0.1', helpValue: 'ADDR', summary: 'address of the target' }),
  trsvcid: Flags.integer({ char: 's', default: 4420, min: 1, max: 65535, helpValue: 'PORT', summary: 'port of the target' }),
  hostnqn: Flags.string({
    char: 'q',
    helpValue: 'NQN',
    summary: 'NQN of this host [default: /etc/nvme/hostnqn, or made from /etc/machine-id]',
  }),
  hostid: Flags.string({ char: 'I', helpValue: 'UUID', summary: 'ID of this host [default: the UUID in its NQN, or /etc/nvme/hostid]' }),
  'hdr-digest': Flags.boolean({ char: 'g', summary: 'protect PDU headers with CRC-32C' }),
  'data-digest': Flags.boolean({ char: 'G', summary: 'protect data with CRC-32C' }),
  'keep-alive-tmo': Flags.integer({
    char: 'k',
    default: 5,
    min: 0,
    max: 4_294_967,
    helpValue: 'SECONDS',
    summary: 'keep-alive time-out; 0 disables it',
  }),
  'dhchap-secret-file': Flags.string({ helpValue: 'FILE', summary: 'DH-HMAC-CHAP key of this host (also env:NAME, fd:N)' }),
  'dhchap-ctrl-secret-file': Flags.string({
    helpValue: 'FILE',
    summary: 'DH-HMAC-CHAP key with which the target must authenticate',
  }),
  tls: Flags.boolean({ summary: 'connect with TLS 1.3; needs --tls-key-file', dependsOn: ['tls-key-file'] }),
  'tls-key-file': Flags.string({ helpValue: 'FILE', summary: 'TLS key of this host (also env:NAME, fd:N); implies --tls' }),
  timeout: Flags.duration({ default: 30000, summary: 'time limit for connecting and for each command' }),
};

/** The subsystem to connect to. */
export const subsystemFlags = {
  nqn: Flags.string({ char: 'n', required: true, helpValue: 'NQN', summary: 'NQN of the subsystem' }),
};

/** Flags of commands that do I/O. */
export const queueFlags = {
  'nr-io-queues': Flags.integer({
    char: 'i',
    default: 1,
    min: 1,
    max: 1024,
    helpValue: 'N',
    summary: 'I/O queues, each its own connection',
  }),
  'queue-size': Flags.integer({ char: 'Q', default: 128, min: 2, max: 65536, helpValue: 'N', summary: 'entries of each I/O queue' }),
  'disable-sqflow': Flags.boolean({ summary: 'ask the target to disable SQ flow control' }),
};

/** The namespace to read or write. */
export const namespaceFlags = {
  'namespace-id': Flags.integer({
    min: 1,
    max: 0xfffffffe,
    helpValue: 'NSID',
    summary: 'namespace; optional if there is only one',
  }),
};

/** Where in the namespace, in bytes or in blocks. */
export const rangeFlags = {
  offset: Flags.sizeBig({ summary: 'first byte [default: 0]', exclusive: ['start-block'] }),
  count: Flags.sizeBig({ summary: 'number of bytes [default: up to the end of the namespace]', exclusive: ['blocks'] }),
  'start-block': Flags.u64({ helpValue: 'LBA', summary: 'first block, instead of --offset' }),
  blocks: Flags.u64({ helpValue: 'N', summary: 'number of blocks, instead of --count' }),
  chunk: Flags.size({ default: 1 << 20, summary: 'bytes of one command, at most what the controller accepts' }),
  iodepth: Flags.integer({ default: 32, min: 1, max: 1024, helpValue: 'N', summary: 'commands under way at once, over all queues' }),
};

type Parsed = Record<string, unknown>;

/** The options that flags make. @throws usage errors */
export function controllerOptions(flags: Parsed, subnqn: string, io: boolean): ControllerOptions {
  const { hostnqn, hostid } = hostIdentity({
    hostnqn: flags.hostnqn as string | undefined,
    hostid: flags.hostid as string | undefined,
  });
  return {
    address: (flags.traddr as string).replace(/^\[(.*)\]$/, '$1'),
    port: flags.trsvcid as number,
    headerDigest: flags['hdr-digest'] === true,
    dataDigest: flags['data-digest'] === true,
    timeout: flags.timeout as number,
    keepAlive: (flags['keep-alive-tmo'] as number) * 1000,
    hostnqn,
    hostid,
    subnqn,
    tls: tlsOptions(flags['tls-key-file'] as string | undefined, hostnqn, subnqn),
    chap: chapOptions(flags['dhchap-secret-file'] as string | undefined, flags['dhchap-ctrl-secret-file'] as string | undefined),
    ...(io && {
      ioQueues: flags['nr-io-queues'] as number,
      queueSize: flags['queue-size'] as number,
      sqFlowControlOff: flags['disable-sqflow'] === true,
    }),
  };
}

/** As controllerOptions, and the key of TLS for the discovery service too: a key may be read only once. @throws usage errors */
export function optionsWithDiscovery(
  flags: Parsed,
  subnqn: string,
): { options: ControllerOptions; discoveryTls: ControllerOptions['tls'] } {
  const { 'tls-key-file': file, ...rest } = flags;
  const options = controllerOptions(rest, subnqn, true);
  const [tls, discoveryTls] = tlsOptionsFor(file as string | undefined, options.hostnqn, [subnqn, discoveryNqn]);
  return { options: { ...options, tls }, discoveryTls };
}

/** Connects; the end of the command disconnects, whatever way it comes. */
export async function connect(life: Lifetime, flags: Parsed, io: boolean): Promise<Controller> {
  const controller = await Controller.connect(controllerOptions(flags, flags.nqn as string, io));
  life.defer(() => controller.disconnect());
  life.signal.addEventListener('abort', () => controller.close(), { once: true });
  return controller;
}

/** Opens the namespace that --namespace-id names, or the only one, in the native host; the end of the command closes it. */
export async function openNamespace(life: Lifetime, flags: Parsed): Promise<OpenNamespace> {
  const options = controllerOptions(flags, flags.nqn as string, true);
  const ns = await OpenNamespace.open(options, flags['namespace-id'] as number | undefined, life.signal);
  life.defer(() => ns.close());
  return ns;
}

/** `127.0.0.1:4420`, `[::1]:4420`, `:4420` (loopback). @throws usage error */
export function parseEndpoint(text: string): { address: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65535) throw usage(`not an address and port: "${text}"`, '127.0.0.1:4420, [::1]:4420 or :4420');
  return { address: match[1] ?? (match[2] || '127.0.0.1'), port };
}
