import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { mayFetchNode, npmNode } from '../support/npm-node.js';
import { skip, which } from '../support/skip.js';

const root = path.resolve(program, '..', '..');
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-pack-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));

describe('the npm package', () => {
  let bin = '';
  const packed: { files: { path: string }[]; filename: string; size: number }[] = [];

  beforeAll(() => {
    const out = execFileSync('npm', ['pack', '--ignore-scripts=false', '--json', '--silent', '--pack-destination', dir], {
      cwd: root,
      encoding: 'utf8',
    });
    const parsed = JSON.parse(out.slice(out.search(/^[[{]/m)));
    packed.push(...((Array.isArray(parsed) ? parsed : Object.values(parsed)) as typeof packed));
    // A PATH with nothing but what npm itself needs: no compiler, no make.
    const tools = path.join(dir, 'tools');
    fs.mkdirSync(tools);
    for (const name of ['node', 'npm', 'sh', 'env']) fs.symlinkSync(which(name)!, path.join(tools, name));
    execFileSync('npm', ['install', '--global', '--offline', '--prefix', path.join(dir, 'prefix'), path.join(dir, packed[0]!.filename)], {
      encoding: 'utf8',
      env: { ...process.env, PATH: tools },
    });
    bin = path.join(dir, 'prefix', 'bin', 'vioctl');
  }, 600000);

  test('holds the bundle, the addons, the man pages; no sources, no scripts, no dependencies', () => {
    const files = packed[0]!.files.map((f) => f.path);
    expect(files).toEqual(
      expect.arrayContaining([
        'bin/run.js',
        'dist/vioctl.cjs',
        'dist/vioctl-nvmf.cjs',
        'prebuilds/linux-x64.node',
        'man/vioctl.1',
        'schemas/vfio-list.json',
        'dist/sbom.cdx.json',
        'LICENSE',
        'README.md',
      ]),
    );
    expect(files.filter((f) => /^(src|test|native|node_modules|build)\//.test(f))).toEqual([]);
    const { dependencies, scripts } = JSON.parse(fs.readFileSync(path.join(dir, 'prefix/lib/node_modules/vioctl/package.json'), 'utf8'));
    expect(dependencies).toBeUndefined();
    expect(Object.keys(scripts).filter((name) => /install|^prepare$/.test(name))).toEqual([]);
    expect(fs.existsSync(path.join(dir, 'prefix/lib/node_modules/vioctl/node_modules'))).toBe(false);
  });

  test('has a bill of materials of what it contains', () => {
    const bom = JSON.parse(fs.readFileSync(path.join(dir, 'prefix/lib/node_modules/vioctl/dist/sbom.cdx.json'), 'utf8'));
    expect(bom).toMatchObject({ bomFormat: 'CycloneDX', specVersion: '1.6', metadata: { component: { name: 'vioctl' } } });
    const names = bom.components.map((one: { name: string }) => one.name);
    expect(names).toEqual(expect.arrayContaining(['@oclif/core', 'chalk', 'cli-table3', 'node-addon-api', 'xxhash-addon']));
    for (const { version, licenses, purl, hashes } of bom.components) {
      expect(purl).toMatch(/^pkg:npm\/.*@\d/);
      expect({ version, licence: licenses[0].expression, hash: hashes[0].content }).toEqual({
        version: expect.stringMatching(/^\d/),
        licence: expect.stringMatching(/MIT|ISC|BSD|Apache|CC0/),
        hash: expect.stringMatching(/^[0-9a-f]{128}$/),
      });
    }
  });

  test('installed without a compiler it runs, addon included, on this Node', () => {
    expect(spawnSync(bin, ['--version'], { encoding: 'utf8', env: plainEnv() })).toMatchObject({
      status: 0,
      stderr: '',
      stdout: expect.stringMatching(/^vioctl \d/),
    });
    expect(spawnSync(bin, ['uring', 'probe', '--json'], { encoding: 'utf8', env: plainEnv() })).toMatchObject({ status: 0, stderr: '' });
  });

  test('vioctl/uring is importable: a ring, a table, a read; its types and the C header are there', () => {
    const source = `import { Ring, FileTable } from 'vioctl/uring'; import fs from 'node:fs';
      const ring = new Ring({ entries: 8 }); const files = new FileTable(ring); const buffer = Buffer.alloc(6);
      files.register([fs.openSync(process.argv[2], 'r')]);
      console.log(await ring.readAsync(files.slot(0), buffer, 0), buffer.toString()); ring.close();`;
    const home = path.join(dir, 'prefix', 'lib', 'node_modules');
    const script = path.join(path.dirname(home), 'try.mjs'); // a sibling of node_modules, as a user's program is
    fs.writeFileSync(script, source);
    fs.writeFileSync(path.join(dir, 'text'), 'import');
    const run = spawnSync(process.execPath, [script, path.join(dir, 'text')], { encoding: 'utf8', env: plainEnv() });
    fs.rmSync(script);
    expect(run).toMatchObject({ status: 0, stdout: '6 import\n', stderr: '' });
    const files = packed[0]!.files.map((f) => f.path);
    expect(files).toEqual(expect.arrayContaining(['dist/uring.cjs', 'dist/types/uring/index.d.ts', 'include/vioctl-ring.h']));
  });

  test('a TypeScript program that uses vioctl/uring compiles against the types of the package', () => {
    const home = path.join(dir, 'prefix', 'lib', 'node_modules');
    const source = `import { FileTable, Ring, type Slot, SKIP, VioError, explain, Sysroot } from 'vioctl/uring';
      const ring = new Ring({ entries: 8 });
      const files = new FileTable(ring);
      export const slot: Promise<Slot> = files.open('/etc/hostname', 0);
      files.update(0, [SKIP, 3]);
      ring.read(files.slot(1), Buffer.alloc(8), 0, (result: number, flags: number) => { if (result < 0) throw new VioError(String(flags)); });
      export const why: string = explain('EPERM', new Sysroot()).why;
      // @ts-expect-error a path is no number
      files.open(7, 0);
      ring.close();`;
    const at = path.join(path.dirname(home), 'typed');
    fs.mkdirSync(at);
    fs.writeFileSync(path.join(at, 'try.mts'), source);
    const config = {
      compilerOptions: {
        module: 'nodenext',
        target: 'es2022',
        strict: true,
        noEmit: true,
        types: ['node'],
        typeRoots: [path.join(root, 'node_modules/@types')],
      },
    };
    fs.writeFileSync(path.join(at, 'tsconfig.json'), JSON.stringify({ ...config, files: ['try.mts'] }));
    const run = spawnSync(path.join(root, 'node_modules/.bin/tsc'), ['-p', at], { encoding: 'utf8' });
    expect({ status: run.status, stdout: run.stdout }).toEqual({ status: 0, stdout: '' });
  });

  test.each([20, 22, 24, 26])('Node %d loads and runs it', (major) => {
    if (!mayFetchNode) return skip(`Node ${major}`, 'fetched from npm in CI or with VIOCTL_NO_SKIP=1 only');
    const node = npmNode('x64', major);
    for (const args of [
      ['--help'],
      ['uring', 'probe', '--json'],
      ['dma', 'plan', '--reserved', '/dev/null', '--aw', '39', '--json', 'a=2M'],
    ]) {
      // Twice: the second start takes the compile cache of the first.
      for (const _ of [1, 2])
        expect(
          spawnSync(node, [bin, ...args], { encoding: 'utf8', env: plainEnv({ XDG_CACHE_HOME: path.join(dir, 'cache') }) }),
        ).toMatchObject({ status: 0, stderr: '' });
    }
    // The addon's digests are this Node's OpenSSL; the programming interface loads as well.
    const sum = spawnSync(node, [bin, 'uring', 'sum', '--engine', 'uring', program], { encoding: 'utf8', env: plainEnv() });
    expect(sum.stdout).toBe(spawnSync('sha256sum', [program], { encoding: 'utf8' }).stdout);
    const source = `const { uring } = require('./${path.join('prefix/lib/node_modules/vioctl', 'prebuilds/linux-x64.node')}');
        const { Ring } = require('./prefix/lib/node_modules/vioctl/dist/uring.cjs'); const ring = new Ring(); ring.close();
        console.log(uring.digestSize('sha256'), uring.digestSize('blake2b512'));`;
    expect(spawnSync(node, ['-e', source], { cwd: dir, encoding: 'utf8' })).toMatchObject({ status: 0, stdout: '32 64\n', stderr: '' });
  });

  test('the arm64 addon loads in an arm64 Node and computes', () => {
    const prebuilt = path.join(dir, 'prefix/lib/node_modules/vioctl/prebuilds/linux-arm64.node');
    const qemu = which('qemu-aarch64-static', 'qemu-aarch64');
    if (!fs.existsSync(prebuilt) || !qemu || !mayFetchNode)
      return skip('arm64 package', 'needs g++-aarch64-linux-gnu, qemu-user-static and an arm64 Node from npm');
    const script = `const {common}=require(${JSON.stringify(prebuilt)});console.log(common.crc32c(Buffer.from('123456789')).toString(16), common.crc32cEngine())`;
    const run = spawnSync(qemu, ['-L', '/usr/aarch64-linux-gnu', npmNode('arm64', 22), '-e', script], {
      encoding: 'utf8',
      env: plainEnv(),
      timeout: 120000,
    });
    expect(run).toMatchObject({ status: 0, stdout: 'e3069283 armv8\n' });
    const help = spawnSync(
      qemu,
      ['-L', '/usr/aarch64-linux-gnu', npmNode('arm64', 22), bin, 'dma', 'plan', '--reserved', '/dev/null', '--aw', '39', '--json', 'a=2M'],
      { encoding: 'utf8', env: plainEnv(), timeout: 120000 },
    );
    expect(help).toMatchObject({ status: 0 });
  });

  test('the addons need no newer glibc than 2.34 and no newer libstdc++ than GCC 12', () => {
    const tool = which('objdump');
    if (!tool) return skip('glibc floor', 'objdump is missing (binutils)');
    for (const arch of ['x64', 'arm64']) {
      const file = path.join(dir, `prefix/lib/node_modules/vioctl/prebuilds/linux-${arch}.node`);
      if (!fs.existsSync(file)) continue;
      const versions = [...execFileSync(tool, ['-T', file], { encoding: 'utf8' }).matchAll(/GLIBC_2\.(\d+)/g)].map((m) => Number(m[1]));
      expect(Math.max(...versions)).toBeLessThanOrEqual(34);
    }
  });
});

test('a package without the addon of one architecture is not made, unless that is asked for', () => {
  const copy = path.join(dir, 'incomplete');
  const tools = path.join(copy, 'tools');
  for (const folder of ['scripts', 'native', 'tools']) fs.mkdirSync(path.join(copy, folder), { recursive: true });
  for (const name of ['package.json', 'scripts/native.mjs']) fs.copyFileSync(path.join(root, name), path.join(copy, name));
  fs.writeFileSync(path.join(copy, 'native/one.cc'), 'int one;\n');
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
  // the machine's own compiler and its tools, not the other one's
  const own = process.arch === 'arm64' ? 'aarch64-linux-gnu-g++' : 'x86_64-linux-gnu-g++';
  for (const name of ['node', 'npm', 'env', 'sh', 'as', 'ld', own]) fs.symlinkSync(which(name)!, path.join(tools, name));
  const env = { PATH: tools, CXX: own };
  const run = (extra: Record<string, string>) =>
    spawnSync(process.execPath, [path.join(copy, 'scripts/native.mjs'), '--variant', 'prebuild'], {
      encoding: 'utf8',
      env: { ...env, ...extra },
    });
  const refused = run({});
  expect(refused.status).toBe(1);
  expect(refused.stderr).toMatch(/not built: \S+ is missing/);
  const packed = spawnSync('npm', ['pack', '--ignore-scripts=false', '--offline'], {
    cwd: copy,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  expect({ status: packed.status, stderr: packed.stderr }).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/not built: \S+ is missing/),
  });
  expect(fs.readdirSync(copy).filter((name) => name.endsWith('.tgz'))).toEqual([]);
  expect(run({ VIOCTL_ALLOW_MISSING_PREBUILDS: '1' }).status).toBe(0);
});
