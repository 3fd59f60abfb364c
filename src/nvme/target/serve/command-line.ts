import { usage } from '../../../common/errors.js';
import type { Sysroot } from '../../../common/sysroot.js';
import { readConfigText } from '../../../common/text/document.js';
import { parseConfig } from '../config/read.js';
import { checkSubsystemNqn, parseCntlidRange } from '../names.js';
import { keySources } from '../security/keyring.js';
import type { TlsChoice } from '../security/tls.js';
import { defaultNqn, numbered, parseDiscoveryPort, parseSource, type SubsystemConfig, type TargetConfig } from './config.js';

/** Options of `nvmf serve` by their names. */
export interface ServeFlags {
  listen?: string[] | undefined;
  'discovery-port'?: string | undefined;
  'discovery-nqn'?: string | undefined;
  'max-controllers'?: number | undefined;
  'max-connections'?: number | undefined;
  'max-queues'?: number | undefined;
  nqn?: string | undefined;
  'allow-host'?: string[] | undefined;
  'cntlid-range'?: string | undefined;
  'dhchap-secret-file'?: string[] | undefined;
  'dhchap-ctrl-secret-file'?: string[] | undefined;
  'tls-key-file'?: string[] | undefined;
  tls?: TlsChoice | undefined;
  config?: string | undefined;
  control?: string | undefined;
  metrics?: string | undefined;
  'state-dir'?: string | undefined;
  serial?: string | undefined;
  model?: string | undefined;
  'block-size'?: number | undefined;
  'read-only'?: boolean | undefined;
  force?: boolean | undefined;
  threads?: number | undefined;
  engine?: TargetConfig['engine'];
  spin?: number | undefined;
}

/** Options that describe the one subsystem of a command line: with --config they would be lost, --allow-host too. */
const ofSubsystem = ['nqn', 'allow-host', 'cntlid-range', 'serial', 'model', 'block-size', 'read-only', 'force'] as const;

/** The only subsystem of a command line without --config. */
function subsystemOf(flags: ServeFlags, sources: readonly string[], sysroot: Sysroot): SubsystemConfig {
  const defaults = {
    ...(flags['block-size'] && { blockSize: flags['block-size'] }),
    ...(flags['read-only'] && { readonly: true }),
    ...(flags.force && { force: true }),
  };
  const namespaces = sources.map((source) => parseSource(source, defaults));
  const names = namespaces.map((ns) => ns.source);
  return {
    nqn: flags.nqn ?? defaultNqn(sysroot, names),
    ...(flags.serial !== undefined && { serial: flags.serial }),
    ...(flags.model !== undefined && { model: flags.model }),
    ...(flags['cntlid-range'] !== undefined && { cntlids: parseCntlidRange(flags['cntlid-range']) }),
    ...(flags['allow-host'] && { allowHosts: flags['allow-host'] }),
    namespaces: numbered(namespaces),
  };
}

/** Options of a command line that replace keys of a file. @throws usage error */
export function commandLineOptions(flags: ServeFlags): Partial<TargetConfig> {
  const keys = keySources({
    dhchapSecretFile: flags['dhchap-secret-file'],
    dhchapCtrlSecretFile: flags['dhchap-ctrl-secret-file'],
    tlsKeyFile: flags['tls-key-file'],
  });
  return {
    ...(flags.listen && { listen: flags.listen }),
    ...(flags['discovery-port'] !== undefined && { discoveryPort: parseDiscoveryPort(flags['discovery-port']) }),
    ...(flags['discovery-nqn'] !== undefined && { discoveryNqn: checkSubsystemNqn(flags['discovery-nqn']) }),
    ...(flags['max-controllers'] !== undefined && { maxControllers: flags['max-controllers'] }),
    ...(flags['max-connections'] !== undefined && { maxConnections: flags['max-connections'] }),
    ...(flags['max-queues'] !== undefined && { maxQueues: flags['max-queues'] }),
    ...(flags.control !== undefined && { control: flags.control }),
    ...(flags.metrics !== undefined && { metrics: flags.metrics }),
    ...(flags['state-dir'] !== undefined && { stateDir: flags['state-dir'] }),
    ...(keys.length > 0 && { keys }),
    ...(flags.tls !== undefined && { tls: flags.tls }),
    ...(flags.threads !== undefined && { threads: flags.threads }),
    ...(flags.engine !== undefined && flags.engine !== 'auto' && { engine: flags.engine }),
    ...(flags.spin !== undefined && { spinMicroseconds: flags.spin }),
  };
}

/** What a command line asks to serve, by itself or by its --config. @throws usage error */
export async function commandLineConfig(
  flags: ServeFlags,
  sources: readonly string[] | undefined,
  sysroot: Sysroot,
): Promise<TargetConfig> {
  if (flags.config === undefined && !sources) throw usage('nothing to serve', 'vioctl nvmf serve FILE, or --config FILE');
  if (flags.config !== undefined && sources) throw usage('sources on the command line and --config exclude each other');
  const lost = flags.config === undefined ? undefined : ofSubsystem.find((name) => flags[name] !== undefined);
  if (lost)
    throw usage(
      `--${lost} and --config exclude each other`,
      'in the file, a subsystem has nqn, allowHosts, cntlids, serial and model, a namespace blockSize, readOnly and force',
    );
  const base = flags.config
    ? await parseConfig(readConfigText(flags.config))
    : { referrals: [], subsystems: [subsystemOf(flags, sources ?? [], sysroot)] };
  return { ...base, ...commandLineOptions(flags) };
}
