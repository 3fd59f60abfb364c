#!/bin/sh
':' //; { true 3>&1; } 2>/dev/null && exec node "$0" "$@"; exec node "$0" "$@" 1</dev/null
// Entry point of the installed program: the answer to --version without loading anything, else the bundle of the command's
// group with V8's compile cache (start-up is half of a short command's cost).
//
// The second line is for sh(1), and must stay as it is. Node opens /dev/null for writing in the place of a closed stdout, and no program can
// tell it from a /dev/null that it was given. So a closed stdout becomes a descriptor that cannot be written: write(2) fails with EBADF.
'use strict';
const fs = require('node:fs');

// No node:path in here: it goes through every character, which is much for a start.
const root = __dirname.slice(0, __dirname.lastIndexOf('/'));
const needed = [20, 19];
const running = process.versions.node.split('.').map(Number);
// The bundle would not parse there; this file parses from Node 10 on.
const tooOld = running[0] < needed[0] || (running[0] === needed[0] && running[1] < needed[1]);
const first = process.argv[2];
const group = first === 'help' ? process.argv[3] : first;
if (tooOld) {
  fs.writeSync(2, `vioctl: needs Node ${needed.join('.')} or newer, this is ${process.version}\n`);
  process.exitCode = 7;
} else if (process.argv.length === 3 && (first === '--version' || first === '-V')) {
  const { version } = JSON.parse(fs.readFileSync(`${root}/package.json`, 'utf8'));
  try {
    fs.writeSync(1, `vioctl ${version}\n`);
  } catch (err) {
    if (err.code !== 'EPIPE') {
      try {
        fs.writeSync(2, `vioctl: write error: ${err.code}\n`);
      } catch {
        // stderr is gone as well: the exit status says it
      }
    }
    process.exitCode = err.code === 'EPIPE' ? 141 : 1;
  }
} else {
  const own = /^[a-z][a-z-]{1,15}$/.test(group) && `vioctl-${group}`;
  load(own && fs.existsSync(`${root}/dist/${own}.cjs`) ? own : 'vioctl');
}

/** Runs a bundle through a code cache: Node's own where it has one (22.1 on), else a vm.Script with cachedData. */
function load(bundle) {
  const mod = module.constructor; // node:module, without what its public form loads
  const dir = cacheDirectory();
  const file = `${root}/dist/${bundle}.cjs`;
  if (typeof mod.enableCompileCache === 'function') {
    if (dir !== undefined) mod.enableCompileCache(dir);
    require(file);
    return;
  }
  const vm = require('node:vm');
  const source = fs.readFileSync(file, 'utf8');
  const { size, mtimeMs } = fs.statSync(file);
  const name = `${process.version}-${process.arch}-${size}-${Math.trunc(mtimeMs)}-${bundle}-${shape()}.cache`;
  const cache = dir && `${dir}/${name}`;
  const cachedData = cache && readOwn(cache);
  const script = new vm.Script(mod.wrap(source), {
    filename: file,
    ...(cachedData && { cachedData }),
  });
  // All that a bundle requires are modules of Node's own, so that this file's require() will do.
  const exports = {};
  script.runInThisContext().call(exports, exports, require, { exports }, file, `${root}/dist`);
  if (cache !== undefined && (cachedData === undefined || script.cachedDataRejected)) {
    process.once('exit', () => {
      try {
        const tmp = `${cache}.${process.pid}`;
        fs.writeFileSync(tmp, script.createCachedData(), { mode: 0o600 });
        fs.renameSync(tmp, cache);
        prune(dir);
      } catch {
        // a full disk or a read-only home costs some milliseconds at the next start, nothing else
      }
    });
  }
}

/**
 * Verb and names of options as a number: they decide which code runs, and a cache holds what had run when it was made (a
 * cache made by --help would have every other start compile what it needs).
 */
function shape() {
  const rest = process.argv.indexOf('--');
  const words = process.argv.slice(3, rest < 0 ? undefined : rest);
  const options = words.filter((word) => word[0] === '-').map((word) => (word[1] === '-' ? word.split('=', 1)[0] : word.slice(0, 2)));
  let hash = 0x811c9dc5; // FNV-1a
  for (const char of [words[0], ...new Set(options.sort())].join(' ')) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193);
  return (hash >>> 0).toString(16);
}

/**
 * The caches' directory; undefined where there is no home, or where somebody else could put a cache in our place (code
 * caches are run as they are, and HOME may be another user's under su and sudo). The program works without.
 */
function cacheDirectory() {
  const base = process.env.XDG_CACHE_HOME || (process.env.HOME && `${process.env.HOME}/.cache`);
  if (String(base)[0] !== '/') return undefined;
  const dir = `${base}/vioctl/code`;
  try {
    // Not `recursive`, which in Node 20 never ends below a directory like /proc that makes no entries.
    if (!fs.existsSync(dir))
      for (const made of [base, `${base}/vioctl`, dir]) if (!fs.existsSync(made)) fs.mkdirSync(made, { mode: 0o700 });
    const stat = fs.lstatSync(dir);
    return stat.isDirectory() && stat.uid === process.geteuid() && (stat.mode & 0o022) === 0 ? dir : undefined;
  } catch {
    return undefined;
  }
}

/** A cache's bytes, if the file is ours; undefined otherwise. */
function readOwn(file) {
  let fd;
  try {
    fd = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  } catch {
    return undefined; // first start: no cache yet
  }
  try {
    const { uid, mode } = fs.fstatSync(fd);
    return uid === process.geteuid() && (mode & 0o022) === 0 ? fs.readFileSync(fd) : undefined;
  } finally {
    fs.closeSync(fd);
  }
}

/** Keeps the 64 newest caches: those of older versions of the program go. */
function prune(dir) {
  const caches = fs
    .readdirSync(dir)
    .filter((name) => name.endsWith('.cache'))
    .map((name) => ({ name, time: fs.statSync(`${dir}/${name}`).mtimeMs }))
    .sort((a, b) => b.time - a.time);
  for (const { name } of caches.slice(64)) fs.unlinkSync(`${dir}/${name}`);
}
