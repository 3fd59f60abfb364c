// More wrong command lines: names that lead elsewhere, programs that cannot run, files that are something else. Each answer is in our own
// words, on one line, with an exit status from the table.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-values-'));
beforeAll(() => {
  fs.writeFileSync(path.join(dir, 'disk.img'), Buffer.alloc(1 << 20));
  const files: Record<string, string> = {
    'a.txt': 'hello\n',
    empty: '',
    'version.json': '{"version":1}',
    'open.yaml': 'a: [1\n',
    'twice.yaml': 'a: 1\na: 2\n',
    'indent.yaml': 'a: 1\n  b: 2\n',
    'quote.yaml': 'a: "x\n',
    'anchor.yaml': 'a: &\n',
    'documents.yaml': 'version: 1\n---\na: 2\n',
    'key.yaml': 'x: 1\n',
  };
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(dir, name), text);
  fs.mkdirSync(path.join(dir, 'd'));
  fs.symlinkSync('loop', path.join(dir, 'loop'));
  execFileSync('mkfifo', [path.join(dir, 'fifo')]);
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** A command line (words by blanks, `''` is an empty one), its exit status, what it says, its hint. */
type Case = [line: string, status: number, message: RegExp, hint?: RegExp];

const options: Case[] = [
  ['migration dump --json=1 a.txt', 2, /--json takes no value/, /migration dump --help/],
  ['vfio list --json=', 2, /--json takes no value/],
  ['uring sum --quiet=yes a.txt', 2, /--quiet takes no value/],
  ['vfio list --columns nosuch', 2, /no such column: "nosuch"/, /columns: address, class/],
  ["vfio list --columns ''", 2, /no such column: ""/, /columns: address/],
  ['vfio list --sort nosuch', 2, /no such column: "nosuch"/, /columns: address/],
  ['uring list --watch=abc', 2, /--watch: not a duration: "abc"/, /durations are/],
  ['uring list --watch=0', 2, /--watch: at least 100ms/],
  ['vfio list --group abc', 2, /--group: not a whole number: "abc"/],
  ['vfio list --driver', 2, /--driver needs a value: DRIVER/],
  ['vfio list --class nosuchclass', 2, /no such PCI class: "nosuchclass"/, /classes are .*nvme/],
  ['uring sum --status a.txt', 2, /--status needs --check/],
  ['uring sum --check --tag a.txt', 2, /--tag and --check exclude each other/],
  ['uring sum --depth 0 a.txt', 2, /--depth: must be 1 to 1024, not 0/],
  ['nvmf read -n nqn.2014-08.org.x:y -s 99999', 2, /--trsvcid: must be 1 to 65535, not 99999/],
  ['nvmf read -n nqn.2014-08.org.x:y --count abc', 2, /--count: not a size: "abc"/, /sizes are/],
  ['migration ram a.txt -o out --physical --block x', 2, /--block and --physical exclude each other/],
  ['migration ram a.txt -o out --layout x', 2, /--layout x: expected ADDRESS=NAME/, /--layout 0x100000000=md1/],
  ['migration verify a.txt a.txt', 2, /too many arguments: "a\.txt"/],
];

const empty: Case[] = [
  ["migration dump ''", 2, /FILE is empty/, /variable of the shell/],
  ["vhost-user probe ''", 2, /SOCKET is empty/],
  ["nvmf ctl '' list", 2, /SOCKET is empty/],
  ["dma list ''", 2, /SOCKET is empty/],
  ["vfio apply ''", 2, /FILE is empty/],
  ["vfio show ''", 2, /BDF is empty/],
  ["nvmf serve disk.img --listen ''", 2, /--listen: the value is empty/, /variable of the shell/],
  ["nvmf serve disk.img --control ''", 2, /--control: the value is empty/],
  ["migration ram a.txt -o ''", 2, /--output: the value is empty/],
  ["nvmf discover -a ''", 2, /--traddr: the value is empty/],
  ["dma plan --reserved '' --aw 48 a=4K", 2, /--reserved: the value is empty/],
];

const words: Case[] = [
  ['help nvmf serve extra', 2, /help takes a group and a verb, and not "extra"/, /vioctl help nvmf serve/],
  ['help --man nvmf', 2, /help --man takes a group and a verb/],
  ['man nvmf serve', 2, /no such group: "man"/, /vioctl help --man GROUP VERB/],
  ['completion tcsh', 2, /one shell: bash, zsh or fish/],
  ["''", 2, /no such group: ""/],
  ["nvmf ''", 2, /no such verb: ""/],
  ['--', 2, /no such option: "--"/],
  ['vhost-user shmem frob', 2, /no such verb: "shmem frob"/],
  ['nvmf ctl s frob', 2, /ACTION is list, stats, add, .* or load, not "frob"/],
  ['nvmf ctl s resize', 2, /missing argument: NSID/],
  ['nvmf ctl s resize x', 2, /NSID: not a number: "x"/],
  ['nvmf ctl s host', 2, /host takes add, remove or any$/m, /vioctl nvmf ctl SOCK host add/],
  ['nvmf ctl s host frob', 2, /host takes add, remove or any, not "frob"/],
  ['nvmf ctl s add', 2, /add: no source/, /vioctl nvmf ctl SOCK add FILE/],
  ['nvmf logs frob', 2, /LOG is smart, error, .*, not "frob"/],
  ['vhost-user trace', 2, /both sockets are needed/, /vhost-user trace --listen PATH SOCKET/],
  ['vhost-user shmem map s zz', 2, /not a mapping: "zz"/, /ID:OFFSET=FILE/],
  ['vhost-user shmem serve s --region abc', 2, /not a region: "abc"/, /0=64M/],
];

const places: Case[] = [
  ["nvmf serve ''", 2, /the name of a source is empty/, /sources are FILE, ram:SIZE/],
  ['nvmf serve http://x/y', 1, /ENOENT/, /sources are FILE, ram:SIZE/],
  ['nvmf serve disk.img,foo=1', 1, /ENOENT/, /"foo=1" is no option/],
  ['nvmf serve fifo', 7, /fifo: a FIFO, neither a regular file nor a block device/],
  ['nvmf serve /dev/null', 7, /\/dev\/null: a character device, neither/],
  ['nvmf serve loop', 1, /loop: ELOOP/],
  ['nvmf serve disk.img disk.img', 3, /already in use by this process/],
  ['nvmf serve disk.img,engine=foo', 2, /engine=foo: must be auto or uring or sync/],
  ['nvmf serve disk.img,uuid=1', 2, /uuid=1: must be a UUID/],
  ['nvmf serve disk.img,iops=abc', 2, /iops=abc: not a number: "abc"/, /iops=RATE/],
  ['nvmf serve disk.img --listen [::1', 2, /not an address: "\[::1"/, /addresses are/],
  ['nvmf serve disk.img --metrics nosuch.invalid:9', 1, /listen on nosuch\.invalid port 9: (no such host|the resolver does not answer)/],
  ['nvmf serve disk.img --cntlid-range 5-1', 2, /not a range of controller IDs: "5-1"/],
  ['nvmf serve disk.img --control a.txt', 3, /a\.txt: a file that is no socket is there/],
  ['nvmf serve disk.img --tls-key-file nosuch', 1, /nosuch: ENOENT/],
  ['nvmf serve nbd://127.0.0.1:1/x,timeout=1s', 1, /ECONNREFUSED|libnbd/],
  ['nvmf serve rbd:', 2, /must be rbd:POOL\[\/NAMESPACE\]\/IMAGE/],
  ['nvmf serve nvme+tcp://127.0.0.1', 2, /must be nvme\+tcp:\/\/HOST/],
  ['vhost-user serve blk s=disk.img s=disk.img', 2, /socket s is given twice/],
  ['vhost-user serve blk s=nosuch', 1, /nosuch: ENOENT/, /truncate -s 1G/],
  ['vhost-user serve blk --fd 99 --file disk.img', 2, /descriptor 99 is no connected socket/],
  ['uring cat loop', 1, /loop: ELOOP/],
  ['uring bench empty', 1, /smaller than one read of 4096 bytes/, /--size/],
  ['migration ram a.txt -o d', 1, /d: EISDIR/],
  ['migration ram a.txt -o nosuch/out', 1, /nosuch\/out: ENOENT/],
  ['migration dump fifo2', 1, /open fifo2: ENOENT/],
];

const configurations: Case[] = [
  ['nvmf serve --config empty', 2, /empty: the file is empty/],
  ['nvmf serve --config version.json', 2, /version\.json: "subsystems" is missing/],
  ['nvmf serve --config d', 1, /d: EISDIR/],
  ['vhost-user serve blk --config key.yaml', 2, /key\.yaml: "disks" is missing/],
  ['vfio apply open.yaml', 5, /open\.yaml:2:1: not valid YAML: a list in \[ \] or an object in \{ \} has no end/],
  ['vfio apply twice.yaml', 5, /twice\.yaml:2:1: not valid YAML: the key is given twice/],
  ['vfio apply indent.yaml', 5, /indent\.yaml:2:4: not valid YAML: wrong indentation/],
  ['vfio apply quote.yaml', 5, /quote\.yaml:2:1: not valid YAML: a quotation mark is missing/],
  ['vfio apply anchor.yaml', 5, /anchor\.yaml:1:5: not valid YAML: an anchor/],
  ['vfio apply documents.yaml', 5, /documents\.yaml: not valid YAML: the file has several documents/],
  ['vfio apply key.yaml', 2, /x: no such key; there are version and devices/],
];

describe.each([
  ['options', options],
  ['empty', empty],
  ['words', words],
  ['places', places],
  ['configurations', configurations],
])('%s', (_kind, cases) => {
  test.each(cases.map((one) => ({ line: one[0], one })))('vioctl $line', ({ one: [line, status, message, hint] }) => {
    const argv = line.split(' ').map((word) => (word === "''" ? '' : word));
    const result = vioctl(argv, { cwd: dir, input: '' });
    expect({ line, status: result.status, stdout: result.stdout }).toEqual({ line, status, stdout: '' });
    expect(result.stderr).toMatch(message);
    if (hint) expect(result.stderr).toMatch(new RegExp(`^hint: .*${hint.source}`, 'm'));
    expect(result.stderr).not.toMatch(/Unexpected token|getaddrinfo|\bat .*\.(ts|js|cjs):\d|Error:|undefined|NaN|[\x00-\x09\x0b-\x1f]/);
  });
});

test.each([
  ['nosuchprog', 127, /run nosuchprog: ENOENT/],
  ['./a.txt', 126, /run \.\/a\.txt: EACCES/],
  ['./d', 126, /run \.\/d: EACCES/],
])('a program that cannot run is told in our words: %s', (program, status, message) => {
  const result = vioctl(['uring', 'register', '--sparse', '1', '--', program], { cwd: dir, input: '' });
  if (/io_uring/.test(result.stderr)) return; // no io_uring here: another error comes first
  expect({ status: result.status, lines: result.stderr.trim().split('\n').length }).toEqual({ status, lines: 1 });
  expect(result.stderr).toMatch(message);
});
