/** Authentication and TLS in `nvmf conform`: our own target is right, and each case finds a target that is not. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { formatChapKey, formatTlsKey } from '../../src/nvme/auth/keys.js';
import { chapCases } from '../../src/nvme/conform/cases/chap.js';
import { tlsCases } from '../../src/nvme/conform/cases/tls.js';
import type { FakeTarget } from '../support/nvme-fake.js';
import { sloppyTarget, sloppyTls } from '../support/nvme-sloppy.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

// Ends a test that hangs, on the slowest machine: what is judged must not depend on it.
jest.setTimeout(600_000);

const nqn = 'nqn.2014-08.org.example:judged';
const keys = { host: { hash: 1, bytes: randomBytes(32) }, controller: { hash: 2, bytes: randomBytes(48) } };
let dir: string;
const at = (name: string) => path.join(dir, name);
const chap = () => ['--dhchap-secret-file', at('host'), '--dhchap-ctrl-secret-file', at('controller')];
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-judge-'));
  for (const name of ['host', 'controller'] as const) fs.writeFileSync(at(name), formatChapKey(keys[name]), { mode: 0o600 });
  fs.writeFileSync(at('sha256'), formatTlsKey({ hash: 1, bytes: randomBytes(32) }), { mode: 0o600 });
  fs.writeFileSync(at('sha384'), formatTlsKey({ hash: 2, bytes: randomBytes(48) }), { mode: 0o600 });
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

interface Judged {
  id: string;
  verdict: 'ok' | 'differs' | 'skipped';
  got: string;
  alive: boolean;
}
async function conform(port: number, options: string[], only: string[]): Promise<Judged[]> {
  const args = ['conform', '-s', String(port), '-n', nqn, '--json', ...options, ...only.flatMap((glob) => ['--only', glob])];
  const { stdout, stderr } = await nvmf(args);
  if (stdout.length === 0) throw new Error(stderr);
  return JSON.parse(stdout.toString()).cases;
}
const idsOf = (cases: readonly Judged[], verdict: Judged['verdict']) => cases.filter((one) => one.verdict === verdict).map(({ id }) => id);
const chapGlobs = ['da*', 'dn*', 'dr*', 'ds*', 'do*'];

/** Most memory that a process has had, in MiB. */
const peakOf = ({ child }: ServedTarget): number =>
  Number(/^VmHWM:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) / 1024;

describe('DH-HMAC-CHAP', () => {
  test('our target is right in every case; 10,000 that begin and stop cost bounded memory', async () => {
    const target = await serveTarget(['ram:16M', '--nqn', nqn, ...chap()]);
    const cases = await conform(target.port, chap(), [...chapGlobs, 'au*', 'io01', 'co01', 'ad01']);
    expect(cases.filter(({ verdict }) => verdict === 'differs')).toEqual([]);
    expect(idsOf(cases, 'skipped').every((id) => id.startsWith('au'))).toBe(true);
    expect(idsOf(cases, 'ok')).toEqual(expect.arrayContaining(chapCases.map(({ id }) => id)));
    expect(peakOf(target)).toBeLessThan(512);
    expect(await target.stop()).toBe(0);
  });

  test('a target without a Diffie-Hellman group: the cases about it are left out', async () => {
    const config = at('null.json');
    const settings = { keys: [{ dhchapSecretFile: 'host' }], dhchapGroups: ['null'], dhchapHashes: ['sha384'] };
    fs.writeFileSync(
      config,
      JSON.stringify({ listen: ['127.0.0.1:0'], ...settings, subsystems: [{ nqn, namespaces: [{ source: 'ram:1M' }] }] }),
    );
    const target = await serveTarget(['--config', config]);
    const cases = await conform(target.port, chap().slice(0, 2), ['dr*', 'ds01', 'do06']);
    expect(idsOf(cases, 'differs')).toEqual([]);
    expect(idsOf(cases, 'skipped')).toEqual([...Array.from({ length: 10 }, (_, i) => `dr${12 + i}`), 'ds01', 'do06']);
    expect(await target.stop()).toBe(0);
  });

  const against = async (fake: FakeTarget, only: string[]): Promise<Judged[]> => {
    const port = await fake.listen();
    try {
      return await conform(port, chap(), only);
    } finally {
      fake.close();
    }
  };
  const fine = ['do11', 'do12'];
  const judged = chapCases.map(({ id }) => id).filter((id) => id !== 'do13'); // legal as well, and our own target has a crowd

  test('a target that takes anything is found by each case', async () => {
    const cases = await against(sloppyTarget({ keys }), judged);
    expect(cases.filter(({ alive }) => !alive)).toEqual([]);
    expect(idsOf(cases, 'ok')).toEqual(fine);
    expect(idsOf(cases, 'differs')).toEqual(judged.filter((id) => !fine.includes(id)));
  });

  test('a target in a hurry, one that authenticates once, one that those who stop keep busy', async () => {
    // it ends a host of this machine too that is late by itself: then the run could not begin, and is tried again
    let hurried: Judged[] | undefined;
    for (let tries = 1; hurried === undefined; tries++)
      hurried = await against(sloppyTarget({ keys, hurry: 300 }), ['do11']).catch((error: Error) => {
        if (tries === 20 || !error.message.includes('ECONNRESET')) throw error;
        return undefined;
      });
    expect(idsOf(hurried, 'differs')).toEqual(['do11']);
    expect(idsOf(await against(sloppyTarget({ keys, once: true }), ['do12']), 'differs')).toEqual(['do12']);
    const full = sloppyTarget({ keys });
    full.limit(20);
    expect(idsOf(await against(full, ['do13']), 'differs')).toEqual(['do13']);
  });
});

describe('TLS', () => {
  test.each(['sha256', 'sha384'])('our target is right in every case (%s)', async (key) => {
    const target = await serveTarget(['ram:16M', '--nqn', nqn, '--tls-key-file', at(key)]);
    const cases = await conform(target.port, ['--tls-key-file', at(key)], key === 'sha256' ? ['tl*', 'io01'] : ['tl0*', 'tl1*', 'tl2*']);
    expect(cases.filter(({ verdict }) => verdict === 'differs')).toEqual([]);
    expect(idsOf(cases, 'skipped')).toEqual(['tl01']);
    expect(peakOf(target)).toBeLessThan(512);
    expect(await target.stop()).toBe(0);
  });

  test('broken targets are found by each case', async () => {
    const target = await serveTarget(['ram:16M', '--nqn', nqn, '--tls-key-file', at('sha256')]);
    const options = ['--tls-key-file', at('sha256')];
    const run = async (fault: Parameters<typeof sloppyTls>[1], only: string[], most?: number, to = target, keyed = options) => {
      const broken = await sloppyTls(to.port, fault, most);
      try {
        return await conform(broken.port, keyed, only);
      } finally {
        broken.close();
      }
    };
    const all = tlsCases.map(({ id }) => id);
    const legal = ['tl01', 'tl02', 'tl03', 'tl70'];
    const found = await run(
      'takes all',
      all.filter((id) => !legal.includes(id)),
    );
    expect(found.filter(({ alive }) => !alive)).toEqual([]);
    expect(idsOf(found, 'differs')).toEqual(all.filter((id) => !legal.includes(id)));
    expect(idsOf(await run('takes nothing', ['tl02', 'tl03']), 'differs')).toEqual(['tl02', 'tl03']);
    expect(idsOf(await run('takes all', ['tl70'], 20), 'differs')).toEqual(['tl70']);
    expect(await target.stop()).toBe(0);

    const open = await serveTarget(['ram:16M', '--nqn', nqn]);
    expect(idsOf(await run('is not secret', ['tl01'], undefined, open, []), 'differs')).toEqual(['tl01']);
    expect(idsOf(await conform(open.port, [], ['tl01']), 'ok')).toEqual(['tl01']);
    expect(await open.stop()).toBe(0);
  });
});
