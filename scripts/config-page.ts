// The manual page of a configuration file, from its description and from the samples that tests run; and the words of vioctl-nvmf(5).
import fs from 'node:fs';
import { bold, line, roff, section, seeAlso, title } from '../src/cli/help/man.js';
import type { FileSection } from './schemas/schema.js';

/** Title of the section of an object: its place in the file. */
const heading = (path: string): string => (path === '' ? 'KEYS OF THE FILE' : `KEYS OF ${path.toUpperCase()}`);

const paragraphs = (...texts: string[]): string[] => texts.flatMap((text, i) => (i === 0 ? [roff(text)] : ['.PP', roff(text)]));

const description = [
  'The file describes what vioctl nvmf serve --config FILE serves. vioctl nvmf ctl SOCK save writes such a file, and vioctl nvmf ctl ' +
    'SOCK load FILE changes a running server to match one. On SIGHUP, the server reads the file of --config again.',
  'The file is JSON, or YAML if its name ends in .yaml or .yml. On standard input, text that begins with { is JSON. In YAML, numbers, ' +
    'true and false may be quoted. A key that is not listed here is an error, and so is a key that is given twice in YAML. The server ' +
    'checks the whole file before it opens anything.',
  'Options of the command line replace the same keys of the file: --listen, --discovery-port, --control, --state-dir, --metrics, ' +
    '--threads, --engine and --spin.',
  'The server also reads a config.json of nvmetcli, which it recognises by the keys ports or hosts. Ports of type tcp become listeners.',
];

const reload = [
  'A reload compares the file with what is served now, including changes by nvmf ctl, and changes only what differs. Subsystems, namespaces and listeners that stay the same are not disturbed.',
  'The server first does everything that can fail: it opens sources and binds addresses. If a step fails, it keeps everything as it was, ' +
    'and says why. nvmf ctl SOCK load FILE --check only prints the changes.',
  'Limits, hosts, ANA states and referrals change in place. A namespace whose source or options change is removed and added: hosts see ' +
    'another disk. If the serial number, model or controller IDs of a subsystem change, its hosts must connect again. A host that is no ' +
    'longer allowed is disconnected.',
  'These keys need a restart: control, stateDir, metrics, threads, spinMicroseconds, engine, headerDigest, dataDigest, ' +
    'and discoveryNqn. A reload with another value is rejected. The key sources changes only on SIGHUP or a restart, not by nvmf ctl.',
  'A reload reads all files of keys again. Connected hosts stay connected: new keys, and other values of tls, dhchapHashes and ' +
    'dhchapGroups, are for the next authentication or connection. If the file leaves one of them or keys out, it stays as it is; an ' +
    'empty list of keys removes all of them. New keys must come from files.',
];

const metrics = [
  'metrics, or --metrics ADDR, serves GET and HEAD of /metrics over HTTP, as OpenMetrics or in the text format of Prometheus. There is ' +
    'no authentication. An address without a host is on loopback, and a UNIX socket is open to the user and the group of the server.',
  'The names begin with vioctl_nvmf_. Counters count the commands, bytes and failures of each subsystem, namespace, host and queue. ' +
    'Gauges show sizes, failed flushes, requests that limits delay, and ANA states. A histogram of each namespace shows the time from ' +
    'the arrival of a command to its answer; for a write, this includes the time to receive its data. An answer has up to 100,000 series.',
];

const security = [
  'The file has paths of key files, never keys. The server rejects a key file that others can read. With any key for DH-HMAC-CHAP, hosts ' +
    'without a key cannot connect.',
  'The keys of a config.json of nvmetcli stay in that file: nvmet:key:FILE#HOSTNQN and nvmet:ctrl_key:FILE#HOSTNQN name them.',
];

const notes = [
  'If two servers share a file (shared), a server that hangs may still write after its hosts have moved to the other one: nothing ' +
    'fences it off. With --keep-alive-tmo 2, Linux hosts fail over within 5 seconds.',
  'nvmf ctl save never writes keys or other secrets.',
];

/** What a page says besides the keys. */
export interface ConfigPage {
  /** `vioctl-nvmf` */
  name: string;
  /** Behind the name. */
  summary: string;
  /** Folder of the samples. */
  samples: string;
  description: readonly string[];
  reload: readonly string[];
  /** Sections behind RELOADING. */
  more?: readonly (readonly [title: string, paragraphs: readonly string[]])[];
  file: readonly [path: string, text: string];
  notes: readonly string[];
  seeAlso: readonly string[];
}

export const nvmfPage: ConfigPage = {
  name: 'vioctl-nvmf',
  summary: 'configuration file of vioctl nvmf serve',
  samples: 'docs/samples/nvmf',
  description,
  reload,
  more: [
    ['METRICS', metrics],
    ['SECURITY', security],
  ],
  file: ['/etc/vioctl/nvmf.json', 'The file of vioctl-nvmf.service.'],
  notes,
  seeAlso: ['vioctl-nvmf-serve(1)', 'vioctl-nvmf-ctl(1)', 'nvmetcli(8)'],
};

/** The manual page. @param sections keys, object by object */
export function configPage(page: ConfigPage, sections: readonly FileSection[]): string {
  const keys = sections.flatMap(({ path, text, keys: list }) =>
    section(heading(path), [
      ...(text === '' ? [] : [roff(text)]),
      ...list.flatMap(({ name, kind, required, text: what }) => [
        '.TP',
        `${bold(name)}`,
        roff(`${what}${what.endsWith('.') ? '' : '.'} (${kind}${required ? ', required' : ''})`),
      ]),
    ]),
  );
  const examples = fs
    .readdirSync(page.samples)
    .sort()
    .flatMap((name) => {
      const text = fs.readFileSync(`${page.samples}/${name}`, 'utf8').trimEnd();
      const body = text.split('\n').map((one) => line(one).replace(/^$/, '.sp'));
      return ['.PP', roff(`${name}:`), '.PP', '.nf', '.RS', ...body, '.RE', '.fi'];
    });
  return `${[
    ...title(page.name, 5),
    ...section('NAME', [roff(`${page.name} - ${page.summary}`)]),
    ...section('DESCRIPTION', paragraphs(...page.description)),
    ...keys,
    ...section('RELOADING', paragraphs(...page.reload)),
    ...(page.more ?? []).flatMap(([name, texts]) => section(name, paragraphs(...texts))),
    ...section('FILES', ['.TP', bold(page.file[0]), roff(page.file[1])]),
    ...section('EXAMPLES', examples.slice(1)),
    ...section('NOTES', paragraphs(...page.notes)),
    ...section('SEE ALSO', seeAlso([...page.seeAlso])),
  ].join('\n')}\n`;
}
