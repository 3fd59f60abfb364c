/**
 * Linux' nvmet as blktests sees it, with `vioctl nvmf serve` behind it: the folders and attributes of its configfs and debugfs
 * (drivers/nvme/target/configfs.c and debugfs.c). What changes in them is a configuration, which the running target loads as
 * `vioctl nvmf ctl SOCK load` does. usage: nvmet.cjs FOLDER CONTROL-SOCKET
 */
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { ControlList } from '../../../src/nvme/target/serve/answers.js';
import { runControl } from '../../../src/nvme/target/serve/ctl.js';
import type { ControlAction, ControlFlags } from '../../../src/nvme/target/serve/verbs.js';
import { type Attribute, type Entry, Errno, Folder, Fuse } from './fuse.js';

const [root, socket] = process.argv.slice(2) as [string, string];
const at = (name: string): string => path.join(root, name);

/** Asks the target as `vioctl nvmf ctl` does. @throws VioError */
async function ctl(action: ControlAction, operands: string[] = [], flags: Partial<ControlFlags> = {}): Promise<unknown> {
  return (await runControl(socket, action, operands, { timeout: 60_000, ...flags } as ControlFlags)).document;
}

/** A folder whose attributes are values. */
class Values<Name extends string> extends Folder {
  readonly values: Record<Name, string>;
  constructor(values: Record<Name, string>, entries: Record<string, Entry> = {}) {
    super(entries);
    this.values = values;
    for (const name of Object.keys(values) as Name[]) this.provide(name, attribute(values, name));
  }
}

function attribute<Name extends string>(values: Record<Name, string>, name: Name, changed: () => Promise<void> = apply): Attribute {
  return {
    get: () => values[name],
    async set(value) {
      const before = values[name];
      values[name] = value;
      try {
        await changed();
      } catch (err) {
        values[name] = before;
        throw err;
      }
    },
  };
}

class Links extends Folder {
  override links = true;
  override changed = apply;
  get names(): string[] {
    return [...this.entries.keys()];
  }
}

/** A folder of folders that are made in it. */
class Folders<One extends Folder> extends Folder {
  override changed = apply;
  override made: (name: string) => One;
  constructor(make: (name: string) => One, entries: Record<string, One> = {}) {
    super(entries);
    this.made = make;
  }
  get all(): [string, One][] {
    return [...this.entries] as [string, One][];
  }
}

const host = () => new Values({ dhchap_key: '', dhchap_ctrl_key: '', dhchap_hash: 'hmac(sha256)', dhchap_dhgroup: 'null' });
const namespace = () => new Values({ device_path: '', device_uuid: randomUUID(), ana_grpid: '1', enable: '0', buffered_io: '0' });
const group = () => new Values({ ana_state: 'optimized' });

class Subsystem extends Values<'attr_allow_any_host' | 'attr_qid_max'> {
  readonly hosts = new Links();
  readonly namespaces = new Folders(namespace);
  constructor(name: string) {
    super({ attr_allow_any_host: '0', attr_qid_max: '128' });
    this.provide('allowed_hosts', this.hosts);
    this.provide('namespaces', this.namespaces);
    // as nvmet does: hosts connect again
    const reconnected = async (): Promise<void> => {
      await apply();
      await ctl('kick', [], { nqn: nqnOf(name) });
    };
    this.provide('attr_qid_max', attribute(this.values, 'attr_qid_max', reconnected));
  }
}

class Port extends Values<'addr_trtype' | 'addr_traddr' | 'addr_adrfam' | 'addr_trsvcid' | 'addr_tsas' | 'addr_treq'> {
  readonly subsystems = new Links();
  readonly groups = new Folders(group, { 1: group() });
  constructor() {
    super({ addr_trtype: '', addr_traddr: '', addr_adrfam: '', addr_trsvcid: '', addr_tsas: 'none', addr_treq: 'required' });
    this.provide('subsystems', this.subsystems);
    this.provide('ana_groups', this.groups);
  }

  get place(): string {
    return `${this.values.addr_traddr}:${this.values.addr_trsvcid}`;
  }
}

const hosts = new Folders(host);
const subsystems = new Folders((name) => new Subsystem(name));
const ports = new Folders(() => new Port());

/** Some tests give names that are no NQN. */
const nqnOf = (name: string): string => (name.startsWith('nqn.') ? name : `nqn.2014-08.org.example:${name}`);

/** nvmet's names are ours: `hmac(sha256)`. */
const hashOf = (name: string): string => name.replace(/^hmac\((.*)\)$/, '$1');

function subsystemConfig(name: string, subsystem: Subsystem, listening: readonly Port[]): object {
  const states = listening.flatMap((port) =>
    port.groups.all.map(([number, { values }]) => ({ group: Number(number), listener: port.place, state: values.ana_state })),
  );
  return {
    nqn: nqnOf(name),
    ...(subsystem.values.attr_allow_any_host !== '1' && { allowHosts: subsystem.hosts.names }),
    ana: states.filter(({ state }) => state !== 'optimized'),
    namespaces: subsystem.namespaces.all
      .filter(([, one]) => served(one))
      .map(([nsid, { values }]) => ({
        nsid: Number(nsid),
        source: values.device_path,
        uuid: values.device_uuid,
        group: Number(values.ana_grpid),
        force: true, // nvmet takes what others use too: a file that is a loop device as well
      })),
  };
}

/** Whether a namespace is there for hosts. nvmet takes a loop device without a file too, which has no blocks. */
function served({ values }: Values<'device_path' | 'enable'>): boolean {
  const size = `/sys/class/block/${path.basename(values.device_path)}/size`;
  const empty = values.device_path.startsWith('/dev/') && fs.existsSync(size) && fs.readFileSync(size, 'utf8').trim() === '0';
  return values.enable === '1' && !empty;
}

/** A key goes into a file, as `serve --config` wants it. */
function keyFile(name: string, key: string): string {
  fs.writeFileSync(at(name), `${key}\n`, { mode: 0o600 });
  return at(name);
}

/** @param tls whether there is a key for TLS, which nvmet finds in the kernel's keyring */
function keysOf(tls: boolean): object[] {
  const keys = hosts.all.map(([name, { values }]) => ({
    host: name,
    ...(values.dhchap_key && { dhchapSecretFile: keyFile(`${name}.host`, values.dhchap_key) }),
    ...(values.dhchap_ctrl_key && { dhchapCtrlSecretFile: keyFile(`${name}.ctrl`, values.dhchap_ctrl_key) }),
  }));
  return [...keys.filter((one) => Object.keys(one).length > 1), ...(tls ? [{ tlsKeyFile: at('tls.key') }] : [])];
}

/** Whether a subsystem admits a host. */
const admits = (name: string): boolean => {
  const subsystem = subsystems.entries.get(name) as Subsystem | undefined;
  return subsystem !== undefined && (subsystem.values.attr_allow_any_host === '1' || subsystem.hosts.names.length > 0);
};

/**
 * The whole configuration. As with nvmet, a port listens while it has a subsystem; but not before one of them admits a host. blktests
 * adds the host last, and a host that connects again meanwhile would be refused for ever: by nvmet too, only that this is quick there.
 */
function config(): object {
  const listening = ports.all.map(([, port]) => port).filter(({ subsystems: { names } }) => names.some(admits));
  const linked = new Set(listening.flatMap((port) => port.subsystems.names));
  const tls = (port: Port): string => `,tls=${port.values.addr_treq === 'required' ? 'require' : 'allow'}`;
  const secure = listening.filter(({ values }) => values.addr_tsas === 'tls1.3');
  const proving = hosts.all.map(([, { values }]) => values).filter(({ dhchap_key }) => dhchap_key);
  const unique = (values: string[], otherwise: string): string[] => [...new Set(values.length > 0 ? values : [otherwise])];
  const mine = subsystems.all.filter(([name]) => linked.has(name));
  return {
    discoveryPort: 'none',
    listen: listening.map((port) => `${port.place}${secure.includes(port) ? tls(port) : ''}`),
    maxQueues: Math.min(64, ...mine.map(([, { values }]) => Number(values.attr_qid_max))),
    keys: keysOf(secure.length > 0),
    dhchapHashes: unique(
      proving.map(({ dhchap_hash }) => hashOf(dhchap_hash)),
      'sha256',
    ), // nvmet's defaults
    dhchapGroups: unique(
      proving.map(({ dhchap_dhgroup }) => dhchap_dhgroup),
      'null',
    ),
    tls: 'off',
    subsystems: mine.map(([name, subsystem]) => subsystemConfig(name, subsystem, listening)),
  };
}

let last: Promise<void> = Promise.resolve();
let loaded = '';

/** Loads the configuration as it is when its turn has come. @throws Errno */
function apply(): Promise<void> {
  const turn = last.then(async () => {
    const text = JSON.stringify(config());
    const wanted = JSON.stringify([text, hosts.all.map(([, { values }]) => values)]); // keys too, which the text does not have
    if (wanted === loaded) return;
    fs.writeFileSync(at('config.json'), text);
    try {
      await ctl('load', [at('config.json')]);
    } catch (err) {
      console.error((err as Error).message, text);
      throw new Errno('EINVAL');
    }
    loaded = wanted;
  });
  last = turn.catch(() => {});
  return turn;
}

/** debugfs: a controller ends by a fatal error. Its folders stay the same ones while it is there. */
function debug(): Folder {
  const folder = new Folder();
  const follow = (into: Folder, names: readonly string[], make: (name: string) => Folder): void => {
    for (const name of into.entries.keys()) if (!names.includes(name)) into.entries.delete(name);
    for (const name of names) if (!into.entries.has(name)) into.entries.set(name, make(name));
  };
  const state = (cntlid: number): Attribute => ({ get: () => 'ready', set: async () => void (await ctl('kick', [], { cntlid })) });
  folder.look = async () => {
    const { controllers } = (await ctl('list')) as ControlList;
    follow(
      folder,
      subsystems.all.map(([name]) => name),
      () => new Folder(),
    );
    for (const [name, one] of folder.entries) {
      const ids = controllers.filter(({ nqn }) => nqn === nqnOf(name)).map(({ cntlid }) => `ctrl${cntlid}`);
      follow(one as Folder, ids, (id) => new Folder({ state: state(Number(id.slice('ctrl'.length))) }));
    }
  };
  return folder;
}

fs.mkdirSync(at('fs'), { recursive: true });
new Fuse(at('fs'), new Folder({ config: new Folder({ hosts, subsystems, ports }), debug: debug() }));
console.log('ready');
