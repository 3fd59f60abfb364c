/** The time line of a connection that vhost-user trace draws at its end: which request took how long, and when. */
import { span } from '../../cli/output/bars.js';
import { printable } from '../../common/escape.js';
import type { TraceEnd, TraceRecord } from '../../vhost-user/tools/proxy.js';

/** Rows kept of one connection, and connections followed at once: a VM may speak for months. */
const mostRows = 200;
const mostConnections = 64;
/** Seconds without a message that end a phase: what follows has a scale of its own. */
const pause = 1;
/** Cells: of the time, of the line, and of a name that has to be cut. */
const timeCells = 10;
const [shortestLine, longestLine] = [8, 60];
const shortestName = 12;

/** Equal requests that followed each other, from the first request to the last answer. */
interface Row {
  key: string;
  op: string;
  count: number;
  start: number;
  end: number;
}

interface Connection {
  phases: Row[][];
  rows: number;
  /** Requests behind the last row that is kept. */
  more: number;
  last: number;
}

/** Follows the records of a trace. */
export class Timeline {
  readonly #connections = new Map<number, Connection>();

  /** Takes a record. @returns the lines of its connection if that ended with it @param room columns of the terminal */
  add(record: TraceRecord | TraceEnd, room: number): string[] {
    if (!('bytes' in record)) {
      if (record.channel !== 'main') return [];
      const lines = this.#lines(record.connection, room);
      this.#connections.delete(record.connection);
      return lines;
    }
    if (Number.isFinite(record.t)) this.#message(record);
    return [];
  }

  /** The connections that have not ended. */
  rest(room: number): string[] {
    const lines = [...this.#connections.keys()].flatMap((connection) => this.#lines(connection, room));
    this.#connections.clear();
    return lines;
  }

  #message({ connection, channel, op, kind, t }: TraceRecord): void {
    let known = this.#connections.get(connection);
    if (!known) {
      if (this.#connections.size >= mostConnections) return;
      known = { phases: [[]], rows: 0, more: 0, last: t };
      this.#connections.set(connection, known);
    }
    const key = `${channel} ${op}`;
    const phase = known.phases.at(-1)!;
    const idle = t - known.last > pause;
    known.last = t;
    if (kind === 'reply') {
      const asked = phase.findLast((row) => row.key === key);
      if (asked) asked.end = Math.max(asked.end, t);
      return;
    }
    const before = phase.at(-1);
    if (before?.key === key && !idle && known.more === 0) {
      before.count++;
      before.end = Math.max(before.end, t);
    } else if (known.rows >= mostRows) known.more++;
    else {
      known.rows++;
      const row = { key, op, count: 1, start: t, end: t };
      if (idle && phase.length > 0) known.phases.push([row]);
      else phase.push(row);
    }
  }

  #lines(connection: number, room: number): string[] {
    const known = this.#connections.get(connection);
    if (!known) return [];
    const more = known.more > 0 ? [`and ${known.more} more requests`] : [];
    return [...known.phases.filter((rows) => rows.length > 0).flatMap((rows) => phaseLines(connection, rows, room)), ...more];
  }
}

function phaseLines(connection: number, rows: readonly Row[], room: number): string[] {
  const start = rows.reduce((least, row) => Math.min(least, row.start), rows[0]!.start);
  const end = rows.reduce((most, row) => Math.max(most, row.end), start);
  const names = rows.map(({ op, count }) => printable(count > 1 ? `${op} x${count}` : op));
  const most = Math.max(shortestName, room - timeCells - shortestLine - 3);
  const width = Math.min(
    most,
    names.reduce((wide, name) => Math.max(wide, name.length), 0),
  );
  const line = Math.max(shortestLine, Math.min(longestLine, room - width - timeCells - 3));
  const cut = (name: string) => (name.length > width ? `${name.slice(0, width - 1)}…` : name).padEnd(width);
  return [
    `connection ${printable(String(connection))}: ${start.toFixed(6)} s to ${end.toFixed(6)} s`,
    ...rows.map((row, i) => {
      const time = `${Math.round((row.end - row.start) * 1e6)} us`;
      return `${cut(names[i]!)} ${time.padStart(timeCells)}  ${span(row.start, row.end, start, end, line)}`;
    }),
  ];
}
