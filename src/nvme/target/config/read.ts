import path from 'node:path';
import { printable } from '../../../common/escape.js';
import { type ConfigText, parseDocument } from '../../../common/text/document.js';
import { sourceOf } from '../../../storage/config/checks.js';
import { defaultPolicy } from '../../auth/controller.js';
import { inNvmetcli } from '../../auth/secret.js';
import { anaStateNames } from '../../wire/index.js';
import type { CntlidRange } from '../names.js';
import { type KeySources, rereadable } from '../security/keyring.js';
import { type NumberedNamespace, numbered, type SubsystemConfig, type TargetConfig } from '../serve/config.js';
import { checkFile } from './check.js';
import type { ConfigFile, KeyEntry, NamespaceEntry, SubsystemEntry } from './description.js';
import { fromNvmetcli, isNvmetcli } from './nvmetcli.js';

export const stateOfName = new Map([...anaStateNames].map(([state, name]) => [name, state]));

/** @throws usage error for a size of memory */
function namespaceOf(entry: NamespaceEntry, folder: string, place: string): NumberedNamespace | Omit<NumberedNamespace, 'nsid'> {
  const { nsid, group, hosts, nguid, eui64, uuid, ...rest } = entry;
  const ids = { ...(nguid !== undefined && { nguid }), ...(eui64 !== undefined && { eui64 }), ...(uuid !== undefined && { uuid }) };
  return {
    ...sourceOf(rest, folder, place),
    ...(nsid !== undefined && { nsid }),
    ...(group !== undefined && { group }),
    ...(hosts !== undefined && { hosts }),
    ...(Object.keys(ids).length > 0 && { ids }),
  };
}

function subsystemOf(entry: SubsystemEntry, folder: string, place: string): SubsystemConfig {
  const { cntlids, ana, namespaces, ...rest } = entry;
  return {
    ...rest,
    ...(cntlids !== undefined && { cntlids: cntlids as unknown as CntlidRange }),
    ...(ana && { ana: ana.map(({ state, ...entry }) => ({ ...entry, state: stateOfName.get(state)! })) }),
    namespaces: numbered(namespaces.map((one, i) => namespaceOf(one, folder, `${place}.namespaces[${i}]`))),
  };
}

/** Sources of keys, whose relative names start in the folder of the file. */
function keysOf({ host, ...from }: KeyEntry, folder: string): KeySources {
  const files = Object.entries(from).map(([key, file]) => [key, rereadable(file) && !inNvmetcli(file) ? path.resolve(folder, file) : file]);
  return { ...(host !== undefined && { nqn: host }), ...Object.fromEntries(files) };
}

/** The configuration of a checked file. @throws VioError (2) */
function configOf(file: ConfigFile, folder: string, name: string): TargetConfig {
  const { $schema: _ignored, listen, referrals, subsystems, keys, dhchapHashes, dhchapGroups, ...rest } = file;
  return {
    ...rest,
    ...(listen && { listen }),
    referrals: referrals ?? [],
    ...(keys && { keys: keys.map((one) => keysOf(one, folder)) }),
    // numbers by now: see check.ts
    ...((dhchapHashes || dhchapGroups) && {
      chapPolicy: {
        hashes: (dhchapHashes as unknown as number[] | undefined) ?? defaultPolicy.hashes,
        groups: (dhchapGroups as unknown as number[] | undefined) ?? defaultPolicy.groups,
      },
    }),
    subsystems: subsystems.map((one, i) => subsystemOf(one, folder, `${printable(name)}.subsystems[${i}]`)),
  };
}

/**
 * Reads a configuration, JSON or YAML, and checks all of it. Nothing is opened.
 * @throws VioError (2) naming the wrong key
 */
export async function parseConfig(config: ConfigText): Promise<TargetConfig> {
  const { folder, name } = config;
  const { value, texts } = await parseDocument(config);
  if (!isNvmetcli(value)) return configOf(checkFile(value, name, texts), folder, name);
  const { file, notes } = fromNvmetcli(value, name, name === 'stdin' ? undefined : path.join(folder, path.basename(name)));
  return { ...configOf(checkFile(file, name, false), folder, name), notes };
}
