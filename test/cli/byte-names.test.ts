// File names are bytes: commands of every group take names that are not UTF-8, and leave files alone that only look the same.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import * as m from '../support/migration.js';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-bytes-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

const stream = Buffer.concat([
  m.header(),
  m.configuration(),
  m.start(2, 'ram', 4, Buffer.concat([m.blockList(['pc.ram', m.PAGE]), m.EOS])),
  m.part(2, Buffer.concat([m.page(0, m.pattern(1), 'pc.ram'), m.EOS])),
  m.end(2, m.EOS),
  m.eof,
]);

/** Runs lines of bash with `$V` for vioctl; each server has time to begin. */
function bash(cwd: Buffer | string, lines: string): { status: number | null; stdout: string; stderr: string } {
  const head =
    'V="$0 $1"; cd "$(cat)"; until_there() { for i in $(seq 600); do [ -e "$1" ] && return; sleep 0.1; done; exit 99; }; set -e\n';
  const env = plainEnv();
  return spawnSync('bash', ['-c', head + lines, process.execPath, program], { input: cwd, encoding: 'latin1', env });
}

/** Names of files, sorted, as Latin-1. */
const names = (at: Buffer | string): string[] => fs.readdirSync(at, 'latin1').sort();

/** A name as bytes; as the same word in bash. */
const odd: [what: string, name: Buffer, word: string][] = [
  ['a byte that is never UTF-8', Buffer.from('n\xff', 'latin1'), String.raw`$'n\xff'`],
  ['Latin-1', Buffer.from('caf\xe9', 'latin1'), String.raw`$'caf\xe9'`],
  ['the beginning of a character', Buffer.from('n\xe2\x82', 'latin1'), String.raw`$'n\xe2\x82'`],
  ['an overlong form', Buffer.from('\xc0\xafn', 'latin1'), String.raw`$'\xc0\xafn'`],
  ['a surrogate', Buffer.from('\xed\xa0\x80n', 'latin1'), String.raw`$'\xed\xa0\x80n'`],
];

describe.each(odd)('%s', (_what, name, word) => {
  const latin = name.toString('latin1');
  const at = (text: string) => Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(text, 'latin1')]);
  const lookalike = Buffer.from(name.toString('utf8'), 'utf8').toString('latin1');
  /** What is there is the content wanted; the file whose name is what Node makes of this one is as it was. */
  const write = (content: Buffer | string): void => {
    fs.writeFileSync(at(latin), content);
    fs.writeFileSync(at(lookalike), 'another');
  };
  afterEach(() => {
    if (fs.statSync(at(lookalike)).isFile()) expect(fs.readFileSync(at(lookalike), 'utf8')).toBe('another');
  });

  test('migration reads and writes them', () => {
    write(stream);
    const lines = `N=${word}
$V migration verify "$N" >/dev/null; $V migration dump "$N" >/dev/null; $V migration diff "$N" "$N" >/dev/null
$V migration ram "$N" -o "ram-$N"; $V migration convert "$N" --to mapped-ram -o "mapped-$N"; $V migration verify "mapped-$N" >/dev/null
$V migration verify "none-$N"`;
    const { status, stderr } = bash(dir, lines);
    expect(status).toBe(1);
    expect(stderr.trim().split('\n').at(-1)).toMatch(/none-[ -~]*\\x[0-9a-f]{2}[ -~]*: ENOENT/);
    expect(names(dir)).toEqual([latin, lookalike, `mapped-${latin}`, `ram-${latin}`].sort());
    expect(fs.readFileSync(at(`ram-${latin}`)).subarray(0, m.PAGE)).toEqual(m.pattern(1));
  });

  test('nvmf serves them, and has sockets, outputs and inputs of such names', () => {
    write(Buffer.alloc(1 << 20, 7));
    const lines = `N=${word}; NQN=nqn.2014-08.org.example:bytes
$V nvmf serve "$N" --listen 127.0.0.1:0 --discovery-port none --nqn $NQN --control "ctl-$N" \\
  --metrics "./metrics-$N" --state-dir "state-$N" --json >/dev/null 2>&1 & p=$!
until_there "ctl-$N"; until_there "metrics-$N"; $V nvmf ctl "ctl-$N" list --json; $V nvmf ctl "ctl-$N" save >"saved-$N"
port=$($V nvmf ctl "ctl-$N" list --json | sed -n 's/.*"port": \\([0-9]*\\).*/\\1/p' | head -1)
$V nvmf read -a 127.0.0.1 -s $port -n $NQN -d "out-$N" 2>/dev/null
$V nvmf write -a 127.0.0.1 -s $port -n $NQN -d "out-$N" 2>/dev/null
kill $p; wait $p
$V nvmf serve --config "saved-$N" --json >/dev/null 2>&1 & p=$!
until_there "ctl-$N"; $V nvmf ctl "ctl-$N" list --json; kill $p; wait $p`;
    const { status, stdout, stderr } = bash(dir, lines);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [first, second] = [...stdout.matchAll(/"sourceHex": "([0-9a-f]+)"/g)].map(([, hex]) =>
      Buffer.from(hex!, 'hex').toString('latin1'),
    );
    expect([first, second]).toEqual([at(latin).toString('latin1'), at(latin).toString('latin1')]);
    expect(names(dir)).toEqual([latin, lookalike, `out-${latin}`, `saved-${latin}`, `state-${latin}`].sort());
    expect(fs.readFileSync(at(`out-${latin}`)).equals(Buffer.alloc(1 << 20, 7))).toBe(true);
  });

  test('vhost-user and dma take them', () => {
    write(Buffer.alloc(1 << 20));
    fs.writeFileSync(at(`specs-${latin}`), 'a=1M\n');
    const lines = `N=${word}
$V vhost-user serve blk "v-$N=$N" >/dev/null 2>&1 & p=$!
until_there "v-$N"; $V vhost-user probe "v-$N" --json >probed; kill $p; wait $p
$V dma plan --aw 39 --reserved /dev/null "@specs-$N" --json >planned`;
    const { status, stderr } = bash(dir, lines);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(names(dir)).toEqual([latin, lookalike, 'planned', 'probed', `specs-${latin}`].sort());
    expect(JSON.parse(fs.readFileSync(at('planned'), 'utf8'))).toMatchObject({ maps: [{ name: 'a', size: 1 << 20 }] });
  });

  test('the working directory may have such a name', () => {
    fs.mkdirSync(at(latin));
    fs.mkdirSync(at(lookalike));
    fs.writeFileSync(Buffer.concat([at(latin), Buffer.from('/whole')]), stream);
    const lines = '$V migration convert whole --to mapped-ram -o out; $V uring sum whole >/dev/null';
    expect(bash(at(latin), lines)).toMatchObject({ status: 0, stderr: '' });
    expect(names(at(latin))).toEqual(['out', 'whole']);
    expect(names(at(lookalike))).toEqual([]);
  });
});
