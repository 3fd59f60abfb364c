// More wrong command lines: names that lead elsewhere, programs that cannot run, files that are something else. Each answer is in our own
// words, on one line, with an exit status from the table.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program, vioctl } from '../support/cli.js';

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
  ['nvmf serve disk.img --control a.txt', 3, /a\.txt: the file exists and is not a socket/],
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

const numbers: Case[] = [
  ['nvmf serve ram:99999999999T', 2, /size too large: "99999999999T"/, /at most 8191P/],
  ['nvmf serve ram:18446744073709551616', 2, /size too large: "18446744073709551616"/],
  ['migration dump --offset 99999999999999999999 a.txt', 2, /--offset: size too large/],
  ['nvmf serve disk.img,nsid=0', 2, /namespace 0: must be 1 to 16384/],
  ['nvmf serve disk.img,group=33', 2, /ANA group 33: must be 1 to 32/],
  ['nvmf serve disk.img --threads 1e9', 2, /--threads: not a whole number: "1e9"/],
  ['nvmf discover -s 0', 2, /--trsvcid: must be 1 to 65535, not 0/],
  ['nvmf discover --timeout 99999999999999d', 2, /--timeout: not a duration/, /durations are/],
  [`nvmf identify -n ${'x'.repeat(300)}`, 2, /not an NQN: 300 bytes/, /1 to 223 bytes/],
  ['nvmf read -n nqn.2014-08.org.x:y --offset -5', 2, /--offset: not a size: "-5"/],
  ['nvmf proxy --listen 127.0.0.1:0 --to :0', 2, /--to: port 0 is no port of a target/],
  ['uring bench --size 0 disk.img', 2, /--size 0: nothing would be read/],
  ['uring inspect 0', 2, /not a process id: "0"/],
  ['dma plan --reserved /dev/null --aw 48 a=4K,iova=0x1000000000000', 3, /beyond the IOMMU's last address 0xffffffffffff/],
  ['dma plan --reserved /dev/null --aw 48 a=4K,align=3K', 2, /align=3K is not a power of two/],
  ['dma plan --reserved /dev/null --aw 48 --pgsizes 3K a=4K', 2, /not a page size: 3072/, /powers of two/],
  ['dma plan --reserved /dev/null --aw 48 --avoid 5-1 a=4K', 2, /not an address range: "5-1"/, /0xSTART-0xEND/],
  ['dma map 0000:00:00.0 a=4K --timeout -1', 2, /--timeout: not a duration: "-1"/],
  ['vhost-user serve blk s=ram:1M,queues=0', 2, /queues=0: must be 1 to 256/],
  ['vhost-user serve blk s=ram:1M --socket-mode 999', 2, /not a mode: "999"/, /octal/],
  ['vhost-user shmem serve s --region 0=3M', 3, /add up to 3145728 bytes, not a power of two/, /--any-regions/],
  ['vhost-user shmem serve s --region 9999=64M', 2, /not a region: "9999=64M"/, /0=64M/],
];

const things: Case[] = [
  ['nvmf proxy --listen 127.0.0.1:0 --to :4420 --fault frob', 2, /not a fault: "frob"/, /delay:TIME, drop/],
  ['nvmf proxy --listen 127.0.0.1:0 --to :4420 --fault drop,type=Foo', 2, /not a part of a fault: "type=Foo"/, /ICReq/],
  ['nvmf serve disk.img --state-dir a.txt', 1, /a\.txt\/identities\.lock: ENOTDIR/, /--state-dir names a folder/],
  ['nvmf ctl d list', 1, /connect to d: ECONNREFUSED/, /nvmf serve --control/],
  ['vfio apply a.txt', 2, /a\.txt: no document with the key devices/, /man vioctl-vfio-apply/],
  ['vfio bar 0000:00:00.0 0 read zz', 2, /not a register: "zz"/, /\.q\]/],
  ['vfio bar 0000:00:00.0 0 write 4', 2, /write 4: no value/, /write 4\.l=1/],
  ['vfio bar 0000:00:00.0 0 read 4=1', 2, /read 4=1: only write takes a value/],
  ['vfio exec 0000:00:00.0 --memlock abc -- true', 2, /not a size: "abc"/],
  ['vhost-user check a.txt --only nosuchcase', 2, /no case has "nosuchcase" in its name/, /without --only/],
  ['vhost-user shmem unmap a.txt zz', 2, /not a place in a region: "zz"/, /0:16M/],
  ['vhost-user shmem serve s --region 0=64M --map 0:0=nosuch', 1, /open nosuch: ENOENT/],
  ['vhost-user serve blk a.txt=ram:1M', 3, /a\.txt: the file exists and is not a socket/],
  ['migration ram a.txt -o a.txt', 2, /output and input are the same file/],
  ['migration convert a.txt --to xml -o out', 2, /--to takes mapped-ram, not "xml"/],
  ['uring probe --require nosuchfeature', 2, /no such feature: nosuchfeature/, /uring probe names them all/],
  ['dma list d', 1, /connect d: ECONNREFUSED/, /dma map --listen/],
  [`dma plan --reserved /dev/null --aw 48 ${'x'.repeat(300)}`, 2, /not a PCI address/],
  [`dma plan --reserved /dev/null --aw 48 a=4K ${'x'.repeat(300)}`, 2, /not a mapping: "x{60}(?:…|\.{3})"/],
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
  ['numbers', numbers],
  ['things', things],
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

test('words of another program that are not UTF-8 are refused, since it would get other ones', () => {
  const line = String.raw`exec "$0" "$1" uring register a.txt -- echo $'\xff'`;
  const result = spawnSync('bash', ['-c', line, process.execPath, program], { cwd: dir, encoding: 'utf8', env: plainEnv() });
  expect({ status: result.status, stdout: result.stdout }).toEqual({ status: 2, stdout: '' });
  expect(result.stderr).toMatch(/^vioctl: uring register: \$'\\xff': not UTF-8; the program would get another argument\n/);
  expect(result.stderr).toMatch(/\nhint: give the file a second name: ln -s FILE NAME\n$/);
});
