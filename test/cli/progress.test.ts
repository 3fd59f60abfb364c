// Progress on a real terminal (script(1) makes it): a stream that comes slowly through a pipe.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import * as m from '../support/migration.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-progress-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** A stream of many small parts, as QEMU sends them; 64 pages each. */
const parts = 20;
const pages = 64;
const feeder = path.join(dir, 'feed.mjs');
const stream = path.join(dir, 'stream');
beforeAll(() => {
  const size = parts * pages * m.PAGE;
  const body = (i: number) => {
    const records = Array.from({ length: pages }, (_, n) => m.page((i * pages + n) * m.PAGE, m.pattern(n), n === 0 ? 'pc.ram' : undefined));
    return m.part(2, Buffer.concat([...records, m.EOS]));
  };
  const head = Buffer.concat([m.header(), m.configuration(), m.start(2, 'ram', 4, Buffer.concat([m.blockList(['pc.ram', size]), m.EOS]))]);
  const all = [head, ...Array.from({ length: parts }, (_, i) => body(i)), Buffer.concat([m.end(2, m.EOS), m.eof])];
  for (const [i, bytes] of all.entries()) fs.writeFileSync(`${stream}.${String(i).padStart(3, '0')}`, bytes);
  // Piece after piece, with a pause, and a rest at the end if it is told to.
  fs.writeFileSync(
    feeder,
    `import fs from 'node:fs';
     const names = fs.readdirSync('.').filter((name) => /^stream\\.\\d+$/.test(name)).sort();
     const most = Number(process.argv[2] ?? names.length);
     for (const name of names.slice(0, most)) {
       fs.writeSync(1, fs.readFileSync(name));
       await new Promise((resolve) => setTimeout(resolve, 90));
     }
     if (most < names.length) await new Promise((resolve) => setTimeout(resolve, 20000));`,
  );
});

/** What appears on the terminal while a shell command runs. */
function terminal(command: string): string {
  const { stdout, error } = spawnSync('script', ['-qec', command, '/dev/null'], {
    cwd: dir,
    encoding: 'utf8',
    env: { ...plainEnv(), V: `${process.execPath} ${program}`, FEED: `${process.execPath} ${feeder}`, TERM: 'xterm', LC_ALL: 'C.UTF-8' },
    timeout: 60000,
    input: '',
  });
  if (error) throw error;
  return stdout;
}
const redraws = (text: string): string[] => text.split('\r').filter((line) => /\/s/.test(line) && !line.startsWith('\n'));

test.each([
  ['verify', 'migration verify - >/dev/null'],
  ['extract', 'migration ram - -o out >/dev/null'],
])('%s draws how far a stream has come, and leaves nothing behind', (label, command) => {
  const text = terminal(`$FEED | $V ${command}; echo status=$?`);
  const lines = redraws(text);
  expect(lines.length).toBeGreaterThan(2);
  for (const line of lines) expect(line).toMatch(new RegExp(`^${label}  [\\d.]+[KM]  [\\d.]+[KM]?/s  \\d:\\d\\d\\s*$`));
  expect(text).toMatch(/\r +\r(?:extract[^\r]*\r)?[^\r]*status=0\r\n$|\r +\r.*\r\n(.*\r\n)*status=0\r\n$/);
});

test('neither --quiet nor a pipe nor a machine format draws', () => {
  const quiet = [
    'verify - --quiet >/dev/null',
    'stat - 2>err >/dev/null',
    'stat - --json >/dev/null',
    'convert - --to mapped-ram -o mapped --quiet >/dev/null 2>&1',
  ];
  const all = quiet.map((words) => `$FEED | $V migration ${words} &`).join(' ');
  expect(terminal(`${all} wait; echo all=ended`)).toBe('all=ended\r\n');
  expect(fs.readFileSync(path.join(dir, 'err'), 'utf8')).toBe('');
});

test('a signal takes the line away, though the program sleeps in a read', () => {
  const text = terminal(
    '$FEED 16 | { exec 3<&0; $V migration ram - -o cut <&3 & p=$!; sleep 2.5; kill -TERM $p; wait $p; echo status=$?; }; kill %1 2>/dev/null; ls',
  );
  expect(redraws(text).length).toBeGreaterThan(1);
  expect(text).toMatch(/\r\x1b\[Kstatus=143\r\n/);
  expect(text).not.toMatch(/cut/);
});
