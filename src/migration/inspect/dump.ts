import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { formatSize, hex64 } from '../../common/units.js';
import type { Container, Input } from '../containers/input.js';
import type { Unplaced } from '../memory/layout.js';
import { isMissingMemory, type Missing, missingText } from '../memory/missing.js';
import { type Issue, Issues, issueText } from '../stream/issues.js';
import { type Configuration, pagesOf, type RamBlock, type SectionEvent, type Value, type WalkEvent } from '../stream/model.js';
import type { Walker } from '../walk.js';

/** A part of the input. */
export interface Extent {
  start: bigint;
  end: bigint;
  length: number;
}

/** What a walk over a whole stream found, as one document. */
export interface Dump {
  /** the stream has everything that QEMU needs */
  complete: boolean;
  /** what the stream was wrapped in: a libvirt save file, a qcow2 snapshot, or compressed data */
  container?: Container;
  /** version of the stream */
  version?: number;
  /** machine type and capabilities that the stream names */
  configuration?: Configuration;
  /** sections and commands, in the order of the stream */
  records: Exclude<WalkEvent, { type: 'issue' | 'progress' | 'header' | 'configuration' }>[];
  /** RAM blocks with their pages */
  ram?: { pageSize: number; total: bigint; blocks: RamBlock[] };
  /** the stream's own description of its devices */
  description?: { offset: bigint; size: number; complete: boolean; devices: number };
  /** pages that the stream does not give, and why */
  missing?: Missing[];
  /** where the stream lies in its input (decompressed, if that is compressed), and its bytes */
  stream: Extent;
  /** bytes behind the end */
  trailing?: number;
  /** what is wrong with the stream */
  issues: Issue[];
  /** number of issues that are not listed */
  moreIssues?: number;
}

/** Whether an event belongs into the output for the wanted sections. */
export function shows(event: WalkEvent, wanted: (name: string) => boolean, filtered: boolean): boolean {
  if (event.type === 'progress') return false;
  if (event.type === 'section') return wanted(event.name);
  return event.type === 'issue' || !filtered;
}

/** The events of a walk, then what the decompressor had to say; the input is closed after. */
export async function* events(input: Input, walker: Walker): AsyncGenerator<WalkEvent> {
  yield* walker.walk();
  for (const issue of await input.close()) yield { type: 'issue', issue };
}

/** Runs a walk to its end and keeps what `wanted` names. `tick` gets the position from time to time, `each` all records. */
export async function collect(
  input: Input,
  walker: Walker,
  wanted: (name: string) => boolean = () => true,
  filtered = false,
  tick: (position: number) => void = () => {},
  each: (event: WalkEvent) => void = () => {},
): Promise<Dump> {
  const issues = new Issues();
  const dump: Dump = {
    complete: false,
    ...(input.container && { container: input.container }),
    records: [],
    stream: { start: 0n, end: 0n, length: 0 },
    issues: issues.list,
  };
  for await (const event of events(input, walker)) {
    each(event);
    if (event.type === 'progress') tick(event.position);
    else if (event.type === 'issue') issues.add(event.issue);
    else if (event.type === 'header') dump.version = event.version;
    else if (event.type === 'configuration') {
      const { type: _t, offset: _o, size: _s, ...configuration } = event;
      dump.configuration = configuration;
    } else if (event.type === 'trailing') dump.trailing = event.size;
    else if (shows(event, wanted, filtered)) dump.records.push(event);
  }
  dump.records.sort((a, b) => (a.offset < b.offset ? -1 : a.offset > b.offset ? 1 : 0));
  finish(dump, walker);
  dump.complete = walker.sawEof && issues.errors === 0 && !elsewhere(walker.missing);
  if (walker.missing.length > 0) dump.missing = walker.missing;
  if (issues.dropped > 0) dump.moreIssues = issues.dropped;
  return dump;
}

/** Whether the stream is as its QEMU wrote it, and yet memory that belongs to it lies elsewhere. */
export const elsewhere = (missing: readonly Missing[]): boolean => missing.some((m) => m.reason === 'shared');

/** RAM and description of a walk that has ended. */
function finish(dump: Dump, walker: Walker): void {
  const { ram, description, start, end } = walker;
  dump.stream = { start: BigInt(start), end: BigInt(end), length: end - start };
  if (ram?.total !== undefined) dump.ram = { pageSize: ram.options.pageSize, total: ram.total, blocks: ram.update() };
  if (description) {
    const { offset, length, complete, devices } = description;
    dump.description = { offset: BigInt(offset), size: length, complete, devices: devices.length };
  }
}

/** Whether a result is incomplete for another reason than memory that lies elsewhere. */
export const isDamaged = ({ complete, issues, missing = [] }: Pick<Dump, 'complete' | 'issues' | 'missing'>): boolean =>
  !complete && !(elsewhere(missing) && issues.every((i) => i.severity !== 'error'));

/**
 * Whether a dump has failed. Who asked for sections by name has got them, whatever memory is missing: that is told, and no
 * failure.
 */
export const fails = (walker: Walker, issues: readonly Issue[], filtered: boolean): boolean =>
  !walker.sawEof || issues.some(({ severity, code }) => severity === 'error' && !(filtered && isMissingMemory(code)));

/** The error that a damaged input ends with, after what could be shown was shown. */
export function damaged(file: string, issues: readonly Issue[]): VioError {
  const errors = issues.filter((i) => i.severity === 'error');
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : '';
  return new VioError(`${printable(file)}: damaged: ${errors[0] ? issueText(errors[0]) : 'incomplete'}${more}`, {
    code: 'DAMAGED',
    exit: Exit.damaged,
    details: { issues: errors.slice(0, 20) },
  });
}

/** The error that a command ends with whose result needs memory which is not in the stream, though nothing is damaged. */
export function memoryElsewhere(file: string, missing: readonly Missing[]): VioError {
  const shared = missing.filter((m) => m.reason === 'shared');
  const why = shared.map((m) => `${printable(m.block)}: ${missingText(m)}`).join('; ') || 'it has the state of devices only';
  return new VioError(`${printable(file)}: the memory of the guest is not in the stream: ${why}`, {
    code: 'MEMORY_ELSEWHERE',
    exit: Exit.unsupported,
    details: { missing: shared },
    ...(shared.length > 0 && { hint: "keep the memory backend's file together with the stream" }),
  });
}

/** The error about blocks that an output leaves out. */
export function notPlaced(file: string, unplaced: readonly Unplaced[]): VioError {
  const names = unplaced.map((u) => printable(u.block));
  return new VioError(`${printable(file)}: left out, as the stream does not tell the address: ${names.join(', ')}`, {
    code: 'LAYOUT',
    exit: Exit.unsupported,
    hint: `--layout ADDRESS=${names[0]}, or --partial to go without`,
    details: { unplaced },
  });
}

const sectionText = (s: SectionEvent): string => {
  const detail = Object.entries(s.detail ?? {})
    .filter(([, v]) => v !== 0)
    .map(([k, v]) => `${k} ${short(v)}`)
    .join(', ');
  const instance = s.instance === 0 ? '' : ` #${s.instance}`;
  return `${s.record.padEnd(5)} ${printable(s.name)}${instance} (id ${s.id}, version ${s.version}) ${formatSize(s.size)}${detail ? `: ${detail}` : ''}`;
};

type Tree = Value[] | { [name: string]: Value };

const isTree = (value: Value): value is Tree => typeof value === 'object' && value !== null && !(value instanceof Uint8Array);

// Small functions: V8 would begin to compile a larger one for the fields of a usual guest, which takes longer than they do.

function listWithin(list: readonly Value[], room: number): string | undefined {
  if (list.length >= room) return undefined;
  let text = '[';
  for (let i = 0; i < list.length; i++) {
    if (i > 0) text += ' ';
    const shown = within(list[i]!, room - 1 - text.length);
    if (shown === undefined) return undefined;
    text += shown;
  }
  return text.length + 1 < room ? `${text}]` : undefined;
}

/** The text of the fields so far, and one more. */
function fieldWithin(fields: string, name: string, value: Value, room: number): string | undefined {
  const text = `${fields}${fields === '' ? '{' : ', '}${printable(name)}: `;
  const left = room - 1 - text.length;
  const shown = left > 0 && !isTree(value) ? short(value) : within(value, left);
  return shown === undefined || shown.length >= left ? undefined : text + shown;
}

function fieldsWithin(fields: { [name: string]: Value }, room: number): string | undefined {
  let text = '';
  for (const name of Object.keys(fields)) {
    const more = fieldWithin(text, name, fields[name]!, room);
    if (more === undefined) return undefined;
    text = more;
  }
  if (text === '') text = '{';
  return text.length + 1 < room ? `${text}}` : undefined;
}

/** A value on one line of fewer characters than `room`; of most arrays and objects, only the beginning is made to see that they do not fit. */
function within(value: Value, room: number): string | undefined {
  if (room <= 0) return undefined;
  const text = Array.isArray(value) ? listWithin(value, room) : isTree(value) ? fieldsWithin(value, room) : short(value);
  return text !== undefined && text.length < room ? text : undefined;
}

/** A value on one line. */
function short(value: Value): string {
  if (value instanceof Uint8Array) {
    const hex = Buffer.from(value.subarray(0, 32)).toString('hex');
    return `${hex}${value.length > 32 ? `… (${value.length} bytes)` : ''}`;
  }
  if (typeof value === 'bigint') return hex64(value);
  if (typeof value === 'string') return printable(value);
  return isTree(value) ? within(value, Number.POSITIVE_INFINITY)! : value === null ? 'none' : String(value);
}

/** Columns that a field and its value may take on one line; else the value is shown part by part. */
const fieldColumns = 100;

function addField(lines: string[], name: string, value: Value, indent: string): void {
  const line = isTree(value) ? within(value, fieldColumns - indent.length - name.length) : short(value);
  if (line !== undefined) lines.push(`${indent}${printable(name)} = ${line}`);
  else {
    lines.push(`${indent}${printable(name)}:`);
    addFields(lines, value as Tree, `${indent}  `);
  }
}

/** Adds fields as a tree of lines. */
function addFields(lines: string[], fields: Tree, indent: string): void {
  if (Array.isArray(fields)) for (const [i, value] of fields.entries()) addField(lines, `[${i}]`, value, indent);
  else for (const name of Object.keys(fields)) addField(lines, name, fields[name]!, indent);
}

/** What the stream was wrapped in, on one line. */
export function containerLine(container: Container): string {
  const { type, ...rest } = container;
  return `container ${type}: ${Object.entries(rest)
    .map(([k, v]) => `${k} ${printable(String(v))}`)
    .join(', ')}`;
}

/** One event as text lines. */
export function eventLines(event: WalkEvent): string[] {
  if (event.type === 'issue' || event.type === 'progress') return [];
  const at = `0x${event.offset.toString(16).padStart(8, '0')}  `;
  switch (event.type) {
    case 'header':
      return [`${at}header version ${event.version}`];
    case 'configuration': {
      const more = [
        event.pageBits !== undefined ? `page bits ${event.pageBits}` : '',
        event.capabilities ? `capabilities ${event.capabilities.join(' ')}` : '',
        event.uuid ? `uuid ${event.uuid}` : '',
      ].filter(Boolean);
      return [`${at}configuration ${[event.machine, ...more].map(printable).join(', ')}`];
    }
    case 'section': {
      const lines = [`${at}${sectionText(event)}`];
      if (event.fields) addFields(lines, event.fields, '              ');
      return lines;
    }
    case 'command':
      return [`${at}command ${event.name}${event.data ? ` ${short(event.data)}` : ''}`];
    case 'eof':
      return [`${at}eof`];
    case 'vmdescription':
      return [`${at}vmdescription ${formatSize(event.size)}${event.complete ? '' : ' (cut off)'}`];
    case 'trailing':
      return [`${at}${event.size} bytes behind the end`];
  }
}

/** RAM blocks with their counters. */
export function blockLines(blocks: readonly RamBlock[], pageSize: number): string[] {
  return blocks.map((b) => {
    const { zero, normal, xbzrle, compressed, resent } = b.state;
    const counts = Object.entries({ zero, normal, xbzrle, compressed, resent })
      .filter(([, n]) => n > 0)
      .map(([k, n]) => `${k} ${n}`);
    const pages = pagesOf(b, pageSize);
    return `  block ${printable(b.name)} ${formatSize(b.length)}, ${pages} pages: ${b.shared ? 'shared, not in the file' : counts.join(', ')}`;
  });
}
