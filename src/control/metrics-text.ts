/**
 * Metrics as text: OpenMetrics 1.0, or the older text format of Prometheus (0.0.4), which names counters another way. Values of
 * labels come from hosts: they are escaped here.
 */

export type MetricsFormat = 'openmetrics' | 'prometheus';

export const contentTypes: Readonly<Record<MetricsFormat, string>> = {
  openmetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
};

/** Label names are constants of the program, values are any text. */
export type Labels = Readonly<Record<string, string | number>>;

/** Series of one answer at most: a scrape must not cost the server its time. */
export const maxSeries = 100_000;

type Kind = 'counter' | 'gauge' | 'histogram' | 'info' | 'stateset';

const escaped = (value: string): string =>
  // a lone surrogate has no UTF-8; control characters are no use to anybody and harm terminals
  value
    .toWellFormed()
    .replaceAll('\\', '\\\\')
    .replaceAll('"', '\\"')
    .replaceAll('\n', '\\n')
    .replace(/[\x00-\x1f\x7f-\x9f]/g, '\ufffd');

const labelText = (labels: Labels): string => {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(String(value))}"`);
  return parts.length > 0 ? `{${parts.join(',')}}` : '';
};

/** Builds the text of one answer. */
export class MetricsText {
  readonly #format: MetricsFormat;
  readonly #max: number;
  readonly #lines: string[] = [];
  #series = 0;
  #dropped = 0;

  constructor(format: MetricsFormat, max = maxSeries) {
    this.#format = format;
    this.#max = max;
  }

  /** A value that goes up and down. */
  gauge(name: string, help: string, samples: Iterable<readonly [Labels, number]>): void {
    this.#family('gauge', name, help, samples, '');
  }

  /** A value that only grows. @param name without `_total` */
  counter(name: string, help: string, samples: Iterable<readonly [Labels, number]>): void {
    this.#family('counter', name, help, samples, '_total');
  }

  /** Facts as labels. @param name without `_info` */
  info(name: string, help: string, samples: Iterable<Labels>): void {
    const ones = [...samples].map((labels) => [labels, 1] as const);
    this.#family('info', name, help, ones, '_info');
  }

  /** One of several states: 1 for the state that holds. */
  states(name: string, help: string, states: readonly string[], samples: Iterable<readonly [Labels, string]>): void {
    const all: [Labels, number][] = [];
    for (const [labels, now] of samples) for (const state of states) all.push([{ ...labels, [name]: state }, state === now ? 1 : 0]);
    this.#family('stateset', name, help, all, '');
  }

  /**
   * How values are distributed.
   * @param samples bounds in ascending order with the number of values up to each, then all of them (count) and their sum
   */
  histogram(
    name: string,
    help: string,
    samples: Iterable<readonly [Labels, { bounds: readonly (readonly [bound: number, upTo: number])[]; count: number; sum: number }]>,
  ): void {
    const lines: string[] = [];
    for (const [labels, { bounds, count, sum }] of samples) {
      if (!this.#room(bounds.length + 3)) continue;
      for (const [bound, upTo] of bounds) lines.push(`${name}_bucket${labelText({ ...labels, le: String(bound) })} ${upTo}`);
      lines.push(`${name}_bucket${labelText({ ...labels, le: '+Inf' })} ${count}`);
      lines.push(`${name}_count${labelText(labels)} ${count}`, `${name}_sum${labelText(labels)} ${sum}`);
    }
    this.#add('histogram', name, name, help, lines);
  }

  #family(kind: Kind, name: string, help: string, samples: Iterable<readonly [Labels, number]>, suffix: string): void {
    const lines: string[] = [];
    for (const [labels, value] of samples) if (this.#room(1)) lines.push(`${name}${suffix}${labelText(labels)} ${value}`);
    this.#add(kind, name, `${name}${suffix}`, help, lines);
  }

  #room(series: number): boolean {
    const fits = this.#series + series <= this.#max;
    if (fits) this.#series += series;
    else this.#dropped += series;
    return fits;
  }

  #add(kind: Kind, name: string, full: string, help: string, lines: readonly string[]): void {
    if (lines.length === 0) return;
    const open = this.#format === 'openmetrics';
    const family = open ? name : full;
    const type = open || (kind !== 'info' && kind !== 'stateset') ? kind : 'gauge';
    this.#lines.push(`# HELP ${family} ${help}`, `# TYPE ${family} ${type}`, ...lines);
  }

  /** The whole text. */
  end(): string {
    if (this.#dropped > 0) {
      const dropped = this.#dropped;
      this.#series = Number.NEGATIVE_INFINITY;
      this.gauge('vioctl_metrics_dropped_series', 'Series left out because there are too many.', [[{}, dropped]]);
    }
    return `${this.#lines.join('\n')}\n# EOF\n`;
  }
}
