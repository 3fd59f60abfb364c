// Builds the addon with g++ (or $CXX): one translation unit for each folder of native/, changed ones only, then one link.
// Most of the time goes into headers: read once for a folder, a build takes a third of what it takes file by file.
// No node-gyp: the stable Node-API headers come from npm (node-api-headers, node-addon-api), so that one binary
// loads in every Node from 20 on and nothing is downloaded.
//   --variant release   build/native/release/vioctl.node     (default)
//   --variant asan      build/native/asan/vioctl.node        AddressSanitizer + UBSan, for tests (see CONTRIBUTING.md)
//   --variant prebuild  prebuilds/linux-{x64,arm64}.node     what the npm package carries
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const at = process.argv.indexOf('--variant');
const variant = at > 0 ? process.argv[at + 1] : 'release';

const common = [
  '-std=c++20',
  '-fPIC',
  '-fexceptions',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-pthread',
  '-DNAPI_VERSION=8',
  '-DNODE_ADDON_API_CPP_EXCEPTIONS',
  '-DNODE_ADDON_API_DISABLE_DEPRECATED',
  // An error that a terminating worker cannot take is dropped; without this it would end the process.
  '-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
  '-D_GNU_SOURCE',
  '-D_FILE_OFFSET_BITS=64',
  `-I${root}/native`,
  '-isystem',
  `${root}/node_modules/node-api-headers/include`,
  '-isystem',
  `${root}/node_modules/node-addon-api`,
  '-isystem',
  `${root}/node_modules/@c4312/blake3-native/c`,
  '-isystem',
  `${root}/node_modules/xxhash-addon/xxHash`,
];
const optimised = ['-O2', '-g1', '-fno-plt', '-D_FORTIFY_SOURCE=2', '-fstack-protector-strong'];
const sanitised = ['-O1', '-g1', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'];
const cxx = process.env.CXX || 'g++';

// Code of others that is compiled in: the reference implementations that npm packages carry. Their own warnings are theirs.
const blake3 = 'node_modules/@c4312/blake3-native/c';
const carried = {
  flags: ['-fPIC', '-fvisibility=hidden', '-O3', `-I${root}/${blake3}`],
  sources: (arch) => [
    ...['blake3.c', 'blake3_dispatch.c', 'blake3_portable.c'].map((f) => `${blake3}/${f}`),
    ...(arch === 'arm64' ? ['blake3_neon.c'] : ['sse2', 'sse41', 'avx2', 'avx512'].map((f) => `blake3_${f}_x86-64_unix.S`)).map(
      (f) => `${blake3}/${f}`,
    ),
  ],
};

// nodelete: a worker that ends unloads the addon, but libuv and the addon's own threads may still call into it.
const linked = ['-Wl,-z,nodelete'];
const hardened = [...linked, '-Wl,-z,relro,-z,now'];

const triplets = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' };
const release = { dir: 'release', cxx, flags: optimised, link: hardened, out: 'build/native/release/vioctl.node' };

/** Compiler, flags, link flags and target file of each build that a variant makes. */
const builds = {
  release: [release],
  asan: [{ dir: 'asan', cxx, flags: sanitised, link: [...linked, '-fsanitize=address,undefined'], out: 'build/native/asan/vioctl.node' }],
  // this machine's own from the objects of the release, without symbols
  prebuild: Object.entries(triplets).map(([arch, triplet]) => ({
    ...release,
    ...(arch !== process.arch && { dir: `prebuild-${arch}`, cxx: `${triplet}-g++` }),
    arch,
    link: ['-s', ...hardened],
    out: `prebuilds/linux-${arch}.node`,
  })),
}[variant];
if (!builds) {
  console.error(`native: no variant ${variant} (release, asan, prebuild)`);
  process.exit(2);
}

/** The files of native/ by their folder. */
const folders = new Map();
for (const file of fs.readdirSync(path.join(root, 'native'), { recursive: true }).sort()) {
  if (!file.endsWith('.cc')) continue;
  const folder = path.dirname(path.join('native', file));
  folders.set(folder, [...(folders.get(folder) ?? []), file]);
}

/** Writes the translation unit of each folder where it changed. Includes are relative to native/, as everywhere. */
function units(dir) {
  return [...folders].map(([folder, files]) => {
    const unit = path.join(dir, `${folder.replaceAll('/', '-')}.cc`);
    const text = files.map((file) => `#include "${file}"\n`).join('');
    if (!fs.existsSync(unit) || fs.readFileSync(unit, 'utf8') !== text) fs.writeFileSync(unit, text);
    return unit;
  });
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', (err) => resolve(err.message));
    child.on('exit', (code, signal) => resolve(code === 0 ? undefined : `${command} ended with ${signal ?? code}`));
  });
}

const mtime = (file) => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** True if the object is older than its source, a header it read (from the .d file), this script, or the flags. */
function stale(object, source, stamp) {
  const made = mtime(object);
  if (made === 0 || mtime(source) > made || stamp > made) return true;
  const dep = object.replace(/\.o$/, '.d');
  if (!fs.existsSync(dep)) return true;
  const inputs = fs.readFileSync(dep, 'utf8').replace(/\\\n/g, ' ').split(':').slice(1).join(':').trim().split(/\s+/);
  return inputs.some((input) => input && (mtime(input) === 0 || mtime(input) > made));
}

for (const build of builds) {
  if (variant === 'prebuild' && build.arch !== process.arch && (await run('sh', ['-c', `command -v ${build.cxx} >/dev/null`]))) {
    console.error(`native: ${build.out} not built: ${build.cxx} is missing (Debian: apt install g++-aarch64-linux-gnu)`);
    // A package without it would be installed there and fail: whoever wants that says so.
    if (process.env.VIOCTL_ALLOW_MISSING_PREBUILDS !== '1') process.exit(1);
    continue;
  }
  const dir = path.join(root, 'build', 'native', build.dir);
  fs.mkdirSync(dir, { recursive: true });
  const flags = [...common, ...build.flags];
  const stampFile = path.join(dir, 'flags.txt');
  const stampText = JSON.stringify([build.cxx, flags, carried.flags]);
  if (!fs.existsSync(stampFile) || fs.readFileSync(stampFile, 'utf8') !== stampText) fs.writeFileSync(stampFile, stampText);
  const stamp = mtime(stampFile);
  const all = [...units(dir), ...carried.sources(build.arch ?? process.arch).map((source) => path.join(root, source))];
  const objects = all.map((source) => path.join(dir, `${path.basename(source).replace(/\.\w+$/, '')}.o`));
  const todo = all.map((source, i) => [source, objects[i]]).filter(([source, object]) => stale(object, source, stamp));
  const failures = [];
  const worker = async () => {
    for (let next = todo.shift(); next && !failures.length; next = todo.shift()) {
      const [source, object] = next;
      const own = source.endsWith('.cc');
      const language = own ? flags : [...carried.flags, '-x', source.endsWith('.c') ? 'c' : 'assembler-with-cpp'];
      const failure = await run(build.cxx, [...language, '-MMD', '-MF', object.replace(/\.o$/, '.d'), '-c', source, '-o', `${object}.tmp`]);
      if (failure) failures.push(`${path.relative(root, source)}: ${failure}`);
      else fs.renameSync(`${object}.tmp`, object);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(4, os.availableParallelism())) }, worker));
  if (failures.length) {
    for (const failure of failures) console.error(`native: ${failure}`);
    process.exit(1);
  }
  const out = path.join(root, build.out);
  const list = path.join(dir, `${path.basename(out)}.txt`); // what it was linked from, and how
  const listText = [...build.link, ...objects].join('\n');
  const relisted = !fs.existsSync(list) || fs.readFileSync(list, 'utf8') !== listText;
  if (!relisted && objects.every((object) => mtime(object) <= mtime(out))) continue;
  fs.writeFileSync(list, listText);
  fs.mkdirSync(path.dirname(out), { recursive: true });
  // Written aside and renamed: a running process keeps the file it has mapped.
  const failure = await run(build.cxx, ['-shared', '-pthread', ...build.link, '-o', `${out}.tmp`, ...objects]);
  if (failure) {
    console.error(`native: link: ${failure}`);
    process.exit(1);
  }
  fs.renameSync(`${out}.tmp`, out);
}
