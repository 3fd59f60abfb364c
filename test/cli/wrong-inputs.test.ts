// Wrong and unusual command lines. Each answer names the cause in the words of the help and, where there is one, the way out.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-wrong-'));
beforeAll(() => {
  fs.writeFileSync(path.join(dir, 'disk.img'), Buffer.alloc(1 << 20));
  fs.writeFileSync(path.join(dir, 'a.txt'), 'hello\n');
  fs.writeFileSync(path.join(dir, 'junk.bin'), Buffer.alloc(4096, 0x5a));
  fs.writeFileSync(path.join(dir, 'bad.json'), '{\n  "subsystems": [}\n');
  fs.mkdirSync(path.join(dir, 'd'));
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

type Case = [line: string, status: number, message: RegExp, hint?: RegExp];

const words: Case[] = [
  ['nvfm', 2, /^vioctl: no such group: "nvfm"\n/, /did you mean "nvmf"\?/],
  ['nvmf srve', 2, /no such verb: "srve"/, /did you mean "serve"\?/],
  ['nvmf discovr -a 127.0.0.1', 2, /no such verb: "discovr"/, /did you mean "discover"\?/],
  ['vfio lst', 2, /no such verb: "lst"/, /did you mean "list"\?/],
  ['vhostuser probe', 2, /no such group: "vhostuser"/, /did you mean "vhost-user"\?/],
  ['migrate dump x', 2, /no such group: "migrate"/, /did you mean "migration"\?/],
  ['serve disk.img', 2, /no such group: "serve"/, /which group\? vioctl nvmf serve, vioctl vhost-user serve blk/],
  ['list', 2, /no such group: "list"/, /vioctl vfio list.*vioctl uring list/],
  ['bench', 2, /no such group: "bench"/, /vioctl uring bench, vioctl nvmf bench/],
  ['--verison', 2, /no such option: "--verison"/, /vioctl --help/],
  ['help nosuch', 2, /no such group: "nosuch"/, /vioctl --help/],
  ['help nvmf nosuch', 2, /no such verb: "nosuch"/, /vioctl nvmf --help/],
  ['vhost-user serve net', 2, /no such verb: "serve net"/, /did you mean "serve blk"\?/],
  ['nvmf connect -a x', 2, /no such verb: "connect"/, /connect by themselves; for a kernel device use nvme connect/],
  ['nvmf id-ctrl', 2, /no such verb/, /vioctl nvmf identify/],
  ['nvmf saveconfig', 2, /no such verb/, /vioctl nvmf ctl SOCKET/],
  ['vfio set-override 1:0.0', 2, /no such verb/, /vioctl vfio bind DEVICE --persist/],
  ['vfio nodedev-detach x', 2, /no such verb/, /vioctl vfio bind DEVICE/],
  ['lspci', 2, /no such group/, /vioctl vfio list/],
];

const options: Case[] = [
  ['nvmf serve disk.img --lisen 127.0.0.1:0', 2, /unknown option: --lisen/, /did you mean "--listen"\?/],
  ['nvmf discover -t rdma', 2, /--transport takes tcp, not "rdma"/, /vioctl nvmf discover --help/],
  ['nvmf discover -a 127.0.0.1 -t rdma', 2, /--transport takes tcp, not "rdma"/, /vioctl nvmf discover --help/],
  ['nvmf bench -n nqn.x --bs 5', 2, /--bs: not a multiple of 512 bytes: 5/, /512 bytes or more/],
  ['vfio bind', 2, /missing argument: BDF/, /vioctl vfio bind --help/],
  ['dma plan', 2, /missing argument: BDF\|MAP/, /vioctl dma plan --help/],
  ['vhost-user probe', 2, /missing argument: SOCKET/, /vioctl vhost-user probe --help/],
  ['migration dump', 2, /missing argument: FILE/, /vioctl migration dump --help/],
  ['nvmf read -a 127.0.0.1', 2, /missing option: --nqn/, /vioctl nvmf read --help/],
  ['nvmf bench -n nqn.x --rw foo', 2, /--rw takes randread, randwrite, randrw, read, write or rw, not "foo"/, /--help/],
  ['nvmf bench -n nqn.x --runtime abc --dry-run', 2, /--runtime: not a duration: "abc"/, /durations are 500ms/],
  ['nvmf serve disk.img --block-size 4k', 2, /--block-size: not a whole number: "4k"/, /--help/],
  ['nvmf serve disk.img --threads 0', 2, /--threads: must be 1 to 64, not 0/, /--help/],
  ['vfio show', 2, /missing argument: BDF/, /vioctl vfio show --help/],
  ['vfio bar 01:00.0', 2, /missing arguments: BAR, VERB/, /--help/],
  ['vfio exec 01:00.0 true', 2, /the program to run goes behind --/, /vioctl vfio exec (?:…|\.{3}) -- CMD/],
  ['dma attach /run/x.sock', 2, /the program to run goes behind --/, /vioctl dma attach (?:…|\.{3}) -- CMD/],
  ['vfio list --json --ndjson', 2, /--json and --ndjson exclude each other/],
  ['vfio list --nosuch', 2, /unknown option: --nosuch/, /vioctl vfio list --help/],
  ['vfio list extra', 2, /too many arguments: "extra"/, /--help/],
  ['vfio list --color purple', 2, /--color takes auto, always or never, not "purple"/, /--help/],
  ['uring sum --algorithm sha999 a.txt', 2, /--algorithm takes crc32c, md5, .* or xxh3, not "sha999"/, /--help/],
  ['migration ram junk.bin', 2, /missing option: --output/, /--help/],
  ['migration ram junk.bin --as xyz -o out', 2, /--as takes raw, sparse, elf or lime, not "xyz"/, /--help/],
  ['migration convert junk.bin -o out', 2, /missing option: --to/, /--help/],
  ['migration diff junk.bin', 2, /missing argument: B/, /--help/],
];

const values: Case[] = [
  ['nvmf serve', 2, /nothing to serve/, /vioctl nvmf serve FILE/],
  ['nvmf serve nosuch.img', 1, /nosuch\.img: ENOENT/, /truncate -s 1G .*nosuch\.img/],
  ['nvmf serve d', 1, /d: EISDIR \(Is a directory\)/],
  ['nvmf serve a.txt', 1, /a\.txt: smaller than one block of 512 bytes/, /truncate -s 1G \/\S*a\.txt$/m],
  ['nvmf serve ram:100', 1, /ram:100: smaller than one block of 512 bytes/, /ram:1G/],
  ['vhost-user serve blk s --file a.txt', 1, /a\.txt: its size is no multiple of 512 bytes/, /truncate -s 512 \/\S*a\.txt$/m],
  ['vhost-user serve blk s --file ram:1000', 1, /ram:1000: its size is no multiple of 512 bytes/, /ram:1024$/m],
  ['nvmf serve disk.img --listen 127.0.0.1:99999', 2, /not an address: "127\.0\.0\.1:99999"/, /addresses are/],
  ['nvmf serve disk.img --listen 10.99.99.99:4420', 1, /EADDRNOTAVAIL/, /ip -brief address/],
  ['nvmf serve disk.img --listen nosuch.invalid:4420', 1, /look up nosuch\.invalid: (no such host|.*EAI_AGAIN)/],
  ['nvmf serve ram:10X', 2, /not a size: "10X"/, /sizes are/],
  ['nvmf serve ram:', 2, /not a size: ""/, /sizes are/],
  ['nvmf serve disk.img,bs=1000', 2, /block size 1000: must be 512 or 4096/],
  ['nvmf serve disk.img --nqn foo', 2, /not an NQN: "foo"/, /an NQN is/],
  ['nvmf serve --config a.txt', 2, /a\.txt: not a configuration: no keys/, /JSON, or YAML/],
  ['nvmf serve --config bad.json', 2, /bad\.json: not valid JSON/, /jq/],
  ['nvmf serve --config nosuch.json', 1, /nosuch\.json: ENOENT/],
  ['vfio apply bad.json', 5, /bad\.json: not valid JSON/, /jq/],
  ['nvmf discover -a 127.0.0.1 -s 1', 1, /127\.0\.0\.1:1: ECONNREFUSED/, /nothing listens there/],
  ['nvmf discover -a foo.invalid', 1, /foo\.invalid:8009: (no such host|the resolver does not answer)/, /getent|resolvectl/],
  ['nvmf ctl /nosock list', 1, /connect to \/nosock: ENOENT/, /nvmf serve --control/],
  ['vfio bind 0000:ff:1f.2', 1, /no PCI device 0000:ff:1f\.2/],
  ['dma plan --aw 48 a=4K', 2, /no device: give its PCI address, or --reserved FILE/, /vioctl dma plan 0000:01:00\.0 buf=64M/],
  ['dma plan --reserved /dev/null --aw 48 a', 2, /not a PCI address: "a"/, /addresses are like 0000:01:00\.0/],
  ['uring register nosuch', 1, /1 of 1 entries failed/],
  ['vhost-user shmem map /nosock 0:0=a.txt', 1, /connect \/nosock: ENOENT/, /shmem serve --control/],
  ['migration dump a.txt', 5, /not a QEMU migration stream/],
  ['vfio show 99:99.9', 2, /not a PCI address: "99:99\.9"/, /addresses are like 0000:01:00\.0/],
  ['vfio show nvme0', 2, /not a PCI address: "nvme0"/, /block:nvme0n1/],
  ['vfio bind eth0', 2, /not a PCI address: "eth0"/, /net:eth0/],
  ['vfio show 0000:ff:1f.7', 1, /no PCI device 0000:ff:1f\.7/],
  ['dma plan a=4K', 2, /no device: give its PCI address, or --reserved FILE/, /vioctl dma plan 0000:01:00\.0 buf=64M/],
  ['dma plan --reserved /nosuch --aw 48 a=4K', 1, /read \/nosuch: ENOENT/],
  ['dma plan --reserved a.txt --aw 48 a=4K', 5, /reserved regions, line 1: not "0xSTART 0xEND TYPE": "hello"/, /reserved_regions/],
  ['dma plan --aw 99 --reserved /dev/null a=4K', 2, /not an address width: 99/, /39, 48 or 57/],
  ['dma plan --reserved /dev/null --aw 48 a=4K a=4K', 2, /mapping a is given twice/],
  ['dma plan --reserved /dev/null --aw 48 a=0', 2, /mapping a: size is 0/],
  ['dma plan --reserved /dev/null --aw 48 a=4K,alin=2M', 2, /unknown option "alin=2M"/, /options are ro/],
  ['dma plan --reserved /dev/null --aw 48 a=4K,iova=0x1001', 2, /0x1001 is not aligned to a page/],
  ['dma plan --reserved /dev/null --aw 20 a=4G', 3, /4G do not fit in the IOMMU's addresses/],
  ['dma map 01:00.0', 2, /missing argument: MAP/, /--help/],
  ['uring sum nosuch', 1, /nosuch: ENOENT/],
  ['uring sum d', 1, /d: EISDIR/],
  ['uring sum -c a.txt', 1, /no properly formatted checksum lines found/],
  ['uring inspect 1234567890', 1, /no process 1234567890/, /vioctl uring list/],
  ['uring inspect abc', 2, /not a process id: "abc"/],
  ['uring sync nosuch', 1, /nosuch: ENOENT/],
  ['uring bench nosuch', 1, /nosuch: ENOENT/],
  ['vhost-user probe /nosock', 1, /connect \/nosock: ENOENT/, /vhost-user list/],
  ['vhost-user probe a.txt', 1, /connect a\.txt: ECONNREFUSED/, /is the back-end running/],
  ['vhost-user serve blk s.sock', 2, /--file is needed, or SOCKET=SOURCE/, /serve blk SOCKET=disk\.img/],
  ['vhost-user shmem serve x.sock', 2, /no region/, /--region 0=64M/],
  ['migration dump nosuch', 1, /open nosuch: ENOENT/],
  ['migration dump d', 1, /open d: EISDIR/],
  ['migration dump junk.bin', 5, /not a QEMU migration stream/],
  ['migration stat /dev/null', 5, /the input is empty/],
  ['migration ram junk.bin -o out', 5, /the stream has no guest memory/],
  ['migration verify -', 5, /the input is empty/],
];

describe.each([
  ['words', words],
  ['options', options],
  ['values', values],
])('%s', (_kind, cases) => {
  test.each(cases.map((one) => ({ line: one[0], one })))('vioctl $line', ({ one: [line, status, message, hint] }) => {
    const result = vioctl(line.split(' '), { cwd: dir, input: '' });
    expect({ line, status: result.status }).toEqual({ line, status });
    expect(result.stderr).toMatch(message);
    const hints = result.stderr.split('\n').filter((text) => text.startsWith('hint: '));
    if (hint) expect(hints.join('\n')).toMatch(hint);
    // Nobody else's words, no stack, no control characters.
    expect(result.stderr).not.toMatch(/Unexpected token|getaddrinfo|\bat .*\.(ts|js|cjs):\d|Error:|undefined|NaN|[\x00-\x09\x0b-\x1f]/);
    expect(result.stderr.split('\n').every((text) => text.length < 400)).toBe(true);
  });
});

test('what is unusual but right is no error', () => {
  for (const line of [
    'nvmf bench -n nqn.x --runtime 5 --dry-run',
    'dma plan --reserved /dev/null --aw 48 a=4KB',
    'uring cat',
    'vhost-user shmem',
    'vhost-user serve',
  ])
    expect({ line, status: vioctl(line.split(' '), { cwd: dir, input: '' }).status }).toEqual({ line, status: 0 });
});

test('under --json the answer is one object', () => {
  const { status, stdout, stderr } = vioctl(['nvmf', 'discover', '-a', '127.0.0.1', '-s', '1', '--json']);
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
  expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'ECONNREFUSED', hint: expect.stringContaining('nothing listens') } });
});
