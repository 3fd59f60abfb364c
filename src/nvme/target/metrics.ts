/** What a target tells of itself as metrics: subsystems, namespaces, hosts, queues. */
import { type Labels, type MetricsFormat, MetricsText } from '../../control/metrics-text.js';
import { native as addon } from '../../native/index.js';
import type { LatencyHistogram, NvmeNative, QueueCounters } from '../../native/nvme.js';
import { anaStateNames } from '../wire/index.js';
import { uuidText } from './identity.js';
import type { ControllerState, Namespace } from './model.js';
import { anaOf } from './operations/index.js';
import type { Subsystem } from './subsystem.js';
import type { Target } from './target.js';

type Sample = readonly [Labels, number];

/** Commands by kind, with the labels of whoever sent them. */
const commands = (labels: Labels, of: Pick<QueueCounters, 'reads' | 'writes' | 'flushes' | 'others'>): Sample[] => [
  [{ ...labels, kind: 'read' }, of.reads],
  [{ ...labels, kind: 'write' }, of.writes],
  [{ ...labels, kind: 'flush' }, of.flushes],
  [{ ...labels, kind: 'other' }, of.others],
];
const bytes = (labels: Labels, of: { readBytes: number; writtenBytes: number }): Sample[] => [
  [{ ...labels, kind: 'read' }, of.readBytes],
  [{ ...labels, kind: 'write' }, of.writtenBytes],
];

/** A histogram in seconds; its last bucket is what takes longer than all bounds. */
function distribution({ buckets, first, ns }: LatencyHistogram) {
  let upTo = 0;
  const bounds: [number, number][] = [];
  for (let i = 0; i < buckets.length - 1; i++) {
    upTo += buckets[i]!;
    bounds.push([2 ** (first + i) / 1e9, upTo]);
  }
  return { bounds, count: upTo + buckets.at(-1)!, sum: ns / 1e9 };
}

const total = ({ buckets }: LatencyHistogram): number => buckets.reduce((sum, one) => sum + one, 0);

/** What is read once for an answer. */
function census(native: NvmeNative, target: Target) {
  const subsystems = [...target.subsystems.values()].map((subsystem) => ({
    subsystem,
    labels: { subsystem: subsystem.nqn },
    counters: subsystem.counters(),
  }));
  const namespaces = subsystems.flatMap(({ subsystem, labels }) =>
    [...subsystem.namespaces.values()].map((namespace) => ({
      subsystem,
      namespace,
      labels: { ...labels, nsid: namespace.nsid },
      usage: native.namespaceUsage(namespace.handle),
      limits: addon().storage.limits(namespace.store),
    })),
  );
  const controllers = target
    .controllers()
    .filter((c) => c.subsystem !== undefined)
    .map((controller) => ({ controller, labels: controllerLabels(controller), counters: controller.counters() }));
  return { subsystems, namespaces, controllers };
}

const controllerLabels = (c: ControllerState): Labels => ({ subsystem: c.subnqn, cntlid: c.cntlid, host: c.hostnqn });

const namespaceFacts = ({ source, ids, blockSize, readonly, group }: Namespace): Labels => ({
  source,
  uuid: uuidText(ids.uuid),
  block_size: blockSize,
  read_only: readonly ? 1 : 0,
  ana_group: group,
});

/** The metrics of a target. */
export function metricsOf(native: NvmeNative, target: Target, format: MetricsFormat): string {
  const text = new MetricsText(format);
  const { subsystems, namespaces, controllers } = census(native, target);
  text.gauge('vioctl_nvmf_connections', 'Open connections.', [[{}, target.connections]]);
  text.gauge(
    'vioctl_nvmf_controllers',
    'Associations of hosts with a subsystem.',
    subsystems.map(({ subsystem, labels }) => [labels, subsystem.controllers.size]),
  );
  text.gauge(
    'vioctl_nvmf_namespaces',
    'Namespaces of a subsystem.',
    subsystems.map(({ subsystem, labels }) => [labels, subsystem.namespaces.size]),
  );
  text.states(
    'vioctl_nvmf_ana_state',
    'State of an ANA group.',
    [...anaStateNames.values()],
    subsystems.flatMap(({ subsystem, labels }) => anaSamples(target, subsystem, labels)),
  );
  text.counter(
    'vioctl_nvmf_commands',
    'Commands that succeeded.',
    subsystems.flatMap(({ labels, counters }) => commands(labels, counters)),
  );
  text.counter(
    'vioctl_nvmf_bytes',
    'Bytes that hosts read and wrote.',
    subsystems.flatMap(({ labels, counters }) => bytes(labels, counters)),
  );
  text.counter(
    'vioctl_nvmf_failed_commands',
    'Commands that failed.',
    subsystems.map(({ labels, counters }) => [labels, counters.errors]),
  );
  namespaceMetrics(text, namespaces);
  controllerMetrics(text, native, controllers);
  return text.end();
}

type Census = ReturnType<typeof census>;

function namespaceMetrics(text: MetricsText, namespaces: Census['namespaces']): void {
  const each = (value: (one: Census['namespaces'][number]) => number): Sample[] => namespaces.map((one) => [one.labels, value(one)]);
  text.info(
    'vioctl_nvmf_namespace',
    'What a namespace is.',
    namespaces.map(({ labels, namespace }) => ({ ...labels, ...namespaceFacts(namespace) })),
  );
  text.gauge(
    'vioctl_nvmf_namespace_size_bytes',
    'Size of a namespace.',
    each(({ namespace }) => namespace.size),
  );
  text.gauge(
    'vioctl_nvmf_namespace_error_latched',
    'Whether a flush has failed, and all later ones fail until the source is reopened.',
    each(({ subsystem, namespace }) => (subsystem.syncError(namespace) === undefined ? 0 : 1)),
  );
  text.counter(
    'vioctl_nvmf_namespace_source_failures',
    'Requests and flushes that the source has failed.',
    each(({ namespace }) => addon().storage.failures(namespace.store).count),
  );
  text.counter(
    'vioctl_nvmf_namespace_commands',
    'Commands that succeeded.',
    namespaces.flatMap(({ labels, usage }) => {
      const flushes = usage.flushes;
      const others = Math.max(0, total(usage.other) - flushes);
      return commands(labels, { reads: total(usage.read), writes: total(usage.write), flushes, others });
    }),
  );
  text.counter(
    'vioctl_nvmf_namespace_bytes',
    'Bytes that hosts read and wrote.',
    namespaces.flatMap(({ labels, usage }) => bytes(labels, usage)),
  );
  text.counter(
    'vioctl_nvmf_namespace_failed_commands',
    'Commands that failed.',
    each(({ usage }) => usage.errors),
  );
  text.gauge(
    'vioctl_nvmf_namespace_waiting_requests',
    'Requests that wait because of limits.',
    each(({ limits }) => limits.waiting),
  );
  text.counter(
    'vioctl_nvmf_namespace_delayed_requests',
    'Requests that have waited because of limits.',
    each(({ limits }) => limits.delayed),
  );
  text.histogram(
    'vioctl_nvmf_namespace_latency_seconds',
    'Time from the arrival of a command to its answer.',
    namespaces.flatMap(({ labels, usage }) =>
      (['read', 'write', 'other'] as const).map((kind) => [{ ...labels, kind }, distribution(usage[kind])] as const),
    ),
  );
}

function controllerMetrics(text: MetricsText, native: NvmeNative, controllers: Census['controllers']): void {
  text.gauge(
    'vioctl_nvmf_host_queues',
    'I/O queues of a host.',
    controllers.map(({ labels, controller }) => [labels, controller.queues.size]),
  );
  text.counter(
    'vioctl_nvmf_host_commands',
    'Commands of a host that succeeded.',
    controllers.flatMap(({ labels, counters }) => commands(labels, counters)),
  );
  text.counter(
    'vioctl_nvmf_host_bytes',
    'Bytes that a host read and wrote.',
    controllers.flatMap(({ labels, counters }) => bytes(labels, counters)),
  );
  text.counter(
    'vioctl_nvmf_host_failed_commands',
    'Commands of a host that failed.',
    controllers.map(({ labels, counters }) => [labels, counters.errors]),
  );
  const queues = controllers.flatMap(({ controller, labels: { host: _host, ...labels } }) =>
    native.controllerQueues(controller.handle).map((queue) => ({ queue, labels: { ...labels, qid: queue.qid } })),
  );
  text.counter(
    'vioctl_nvmf_queue_commands',
    'Commands of a queue that succeeded.',
    queues.flatMap(({ queue, labels }) => commands(labels, queue)),
  );
  text.counter(
    'vioctl_nvmf_queue_bytes',
    'Bytes that a queue moved.',
    queues.flatMap(({ queue, labels }) => bytes(labels, queue)),
  );
  text.counter(
    'vioctl_nvmf_queue_failed_commands',
    'Commands of a queue that failed.',
    queues.map(({ queue, labels }) => [labels, queue.errors]),
  );
}

/** States of the groups of a subsystem, as hosts of each listener meet them: a path is a host's way through one. */
function anaSamples(target: Target, subsystem: Subsystem, labels: Labels): [Labels, string][] {
  return target.listeners
    .filter(({ discoveryOnly }) => !discoveryOnly)
    .flatMap(({ id, address, port }) =>
      anaOf(subsystem, id).map(({ group, state }): [Labels, string] => [{ ...labels, address, port, group }, state]),
    );
}
