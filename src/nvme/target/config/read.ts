import fs from 'node:fs';
import path from 'node:path';
import { Exit, VioError, wrap } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { parseJson } from '../../../common/json.js';
import type { Rate } from '../../../native/storage.js';
import { sourcePath } from '../../../storage/source.js';
import { anaStateNames } from '../../wire/index.js';
import type { CntlidRange } from '../names.js';
import { type NumberedNamespace, numbered, type SubsystemConfig, type TargetConfig } from '../serve/config.js';
import { checkFile } from './check.js';
import type { ConfigFile, NamespaceEntry, SubsystemEntry } from './description.js';
import { fromNvmetcli, isNvmetcli } from './nvmetcli.js';

/** Largest file that is read, in bytes: 16,384 namespaces with long names. */
export const maxConfigBytes = 16 << 20;

/** A configuration as it came, with what its relative names are relative to. */
export interface ConfigText {
  text: string;
  /** Of the file, for errors. */
  name: string;
  folder: string;
}

export const stateOfName = new Map([...anaStateNames].map(([state, name]) => [name, state]));

/** @throws usage error for a size of memory */
function namespaceOf(entry: NamespaceEntry, folder: string, place: string): NumberedNamespace | Omit<NumberedNamespace, 'nsid'> {
  const { source, readOnly, nguid, eui64, uuid, iops, bps, ...rest } = entry;
  const ids = { ...(nguid !== undefined && { nguid }), ...(eui64 !== undefined && { eui64 }), ...(uuid !== undefined && { uuid }) };
  let full: string;
  try {
    full = sourcePath(source, folder);
  } catch (err) {
    if (!(err instanceof VioError)) throw err;
    throw new VioError(`${place}.source: ${err.message}`, { code: 'CONFIG', exit: Exit.usage, hint: err.hint });
  }
  return {
    ...rest,
    source: full,
    ...(readOnly !== undefined && { readonly: readOnly }),
    // parsed by check.ts
    ...(iops !== undefined && { iops: iops as unknown as Rate | null }),
    ...(bps !== undefined && { bps: bps as unknown as Rate | null }),
    ...(Object.keys(ids).length > 0 && { ids }),
  };
}

function subsystemOf(entry: SubsystemEntry, folder: string, place: string): SubsystemConfig {
  const { cntlids, ana, namespaces, ...rest } = entry;
  return {
    ...rest,
    ...(cntlids !== undefined && { cntlids: cntlids as unknown as CntlidRange }),
    ...(ana && { ana: ana.map(({ group, state }) => ({ group, state: stateOfName.get(state)! })) }),
    namespaces: numbered(namespaces.map((one, i) => namespaceOf(one, folder, `${place}.namespaces[${i}]`))),
  };
}

/** The configuration of a checked file. @throws VioError (2) */
function configOf(file: ConfigFile, folder: string, name: string): TargetConfig {
  const { $schema: _ignored, listen, referrals, subsystems, ...rest } = file;
  return {
    ...rest,
    listen: listen ?? [],
    referrals: referrals ?? [],
    subsystems: subsystems.map((one, i) => subsystemOf(one, folder, `${printable(name)}.subsystems[${i}]`)),
  };
}

/**
 * Reads a configuration, JSON or YAML, and checks all of it. Nothing is opened.
 * @throws VioError (2) naming the wrong key
 */
export async function parseConfig({ text, name, folder }: ConfigText): Promise<TargetConfig> {
  const json = /\.json$/i.test(name) || (!/\.ya?ml$/i.test(name) && /^\s*([[{]|$)/.test(text));
  const value = json ? parseJson(text, name, Exit.usage) : await parseYaml(text, name);
  if (!isNvmetcli(value)) return configOf(checkFile(value, name, !json), folder, name);
  const { file, notes } = fromNvmetcli(value, name);
  return { ...configOf(checkFile(file, name, false), folder, name), notes };
}

async function parseYaml(text: string, name: string): Promise<unknown> {
  const { load } = await import('../../../common/text/yaml.js');
  return load(text, name, Exit.usage);
}

/** Reads a file, or standard input (`-`), whose names are relative to the current folder. @throws VioError */
export function readConfigText(file: string): ConfigText {
  const name = file === '-' ? 'stdin' : file;
  let text: string;
  try {
    text = fs.readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (err) {
    throw wrap(file === '-' ? 'stdin' : `read ${printable(file)}`, err);
  }
  if (Buffer.byteLength(text) > maxConfigBytes)
    throw new VioError(`${printable(name)}: larger than ${maxConfigBytes} bytes`, { code: 'EFBIG', exit: Exit.usage });
  return { text, name, folder: file === '-' ? process.cwd() : path.dirname(path.resolve(file)) };
}
